//! Every bound of the wake data plane, in one place.

use std::time::Duration;

/// How much KubeNap takes on before it refuses, and how long it waits for what.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How much later than another member this one may see that an app is ready. A request that came during the wake
    /// and waited less than this may be one that the other has sent back: it is passed instead of sent back again.
    pub lag: Duration,
    /// How long a proxy may be behind in what it knows of an app's Service: a request that it sends again by itself waits so
    /// long, since it has no third chance.
    pub behind: Duration,
    /// Connections (and HTTP/2 streams) at a time over all doors. Beyond it the newest of the greediest door is shed.
    pub connections: usize,
    /// How many of the shed may still be on their way out before newcomers are turned away at once.
    pub overflow: usize,
    /// Connections at a time on the proxy listeners, where no app is known before the head is read: fair between peers.
    /// Requests held there share [`Limits::connections`] besides.
    pub proxy_connections: usize,
    /// A connection that says nothing for this long belongs to a protocol in which the server speaks first.
    pub silence: Duration,
    /// How long the head of a request may take to arrive.
    pub head_deadline: Duration,
    /// How long the head of a request may be, in bytes.
    pub head_bytes: usize,
    /// What the heads of all connections together may take, in bytes.
    pub heads_total: usize,
    /// How many header fields a request may have.
    pub headers: usize,
    /// Concurrent streams of one HTTP/2 connection.
    pub http2_streams: u32,
    /// An HTTP/2 connection on which no stream begins for this long is told to end; streams under way go on.
    pub http2_idle: Duration,
    /// How much of one request's body is read while the request is held, in bytes. Only what is read tells
    /// that a client with a body went away.
    pub read_ahead: usize,
    /// The same over all requests together, in bytes.
    pub read_ahead_total: usize,
    /// How much of a body that is not needed is read and thrown away before the answer, in bytes.
    pub discard: u64,
    /// A body that makes no progress for this long is not waited for.
    pub discard_stall: Duration,
    /// How long a body that is not needed is waited for at all, once the answer is known.
    pub discard_within: Duration,
    /// A client that takes nothing of what is sent to it for this long is cut off.
    pub write_stall: Duration,
    /// How long one attempt to connect to a pod may take.
    pub connect_timeout: Duration,
    /// The pause after the first failed attempt to connect; it doubles up to [`Limits::connect_pause_max`].
    pub connect_pause: Duration,
    /// The longest pause between two attempts to connect.
    pub connect_pause_max: Duration,
    /// Attempts to connect that one door makes at a time.
    pub connecting: usize,
    /// How many of the held requests are let go at the moment at which an app becomes ready.
    pub release_first: usize,
    /// How many more are let go each [`Limits::release_every`].
    pub release_batch: usize,
    /// The time between two such batches.
    pub release_every: Duration,
    /// How long a pod may take for the head of its response.
    pub response_head: Duration,
    /// How many (client, host, URL) are remembered to notice redirect loops.
    pub paced: usize,
    /// On leaving: over how long redirects of held requests are spread.
    pub leave_spread: Duration,
    /// On leaving: how long requests that cannot be redirected may go on waiting for their app. Nearly as long as the
    /// process may stay: they would be lost.
    pub leave_patience: Duration,
    /// `Retry-After` where the reason says nothing better.
    pub retry_after: Duration,
}

/// Files that are kept free for pods, the API server, listeners and the log.
const SPARE_FILES: u64 = 1_000;

impl Limits {
    /// With no more connections than this many open files allow: the greediest door is then shed, instead of nobody
    /// getting in.
    #[must_use]
    pub fn within(self, open_files: Option<u64>) -> Self {
        let files = open_files.map_or(u64::MAX, |files| files.saturating_sub(SPARE_FILES).max(files / 2));
        let connections = self.connections.min(usize::try_from(files).unwrap_or(usize::MAX));
        Self { connections, ..self }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lag: Duration::from_secs(1),
            behind: Duration::from_millis(1200),
            connections: 20_000,
            overflow: 500,
            proxy_connections: 5_000,
            silence: Duration::from_secs(3),
            head_deadline: Duration::from_secs(10),
            head_bytes: 32 * 1024,
            heads_total: 128 * 1024 * 1024,
            headers: 100,
            http2_streams: 128,
            http2_idle: Duration::from_mins(1),
            read_ahead: 64 * 1024,
            read_ahead_total: 64 * 1024 * 1024,
            discard: 64 * 1024 * 1024,
            discard_stall: Duration::from_millis(300),
            discard_within: Duration::from_mins(1),
            write_stall: Duration::from_mins(2),
            connect_timeout: Duration::from_secs(1),
            connect_pause: Duration::from_millis(50),
            connect_pause_max: Duration::from_millis(250),
            connecting: 128,
            release_first: 50,
            release_batch: 200,
            release_every: Duration::from_millis(100),
            response_head: Duration::from_mins(5),
            paced: 10_000,
            leave_spread: Duration::from_secs(2),
            leave_patience: Duration::from_secs(30),
            retry_after: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_low_limit_of_open_files_bounds_the_connections_and_none_does_not() {
        let room = |files| Limits::default().within(files).connections;
        assert_eq!((room(None), room(Some(1 << 20))), (20_000, 20_000));
        assert_eq!((room(Some(20_000)), room(Some(1_024)), room(Some(100))), (19_000, 512, 50));
    }
}
