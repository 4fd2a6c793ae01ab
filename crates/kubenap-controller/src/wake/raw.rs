//! Anything that is not HTTP in the clear: held, then spliced to a ready pod.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kubenap_core::answer::Way;
use tokio::io::{AsyncReadExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::ask::{Ask, Goal};
use super::crowd::Slot;
use super::door::Door;
use super::doors::Shared;
use super::hold::{Held, Hold, OnLeave};
use super::pass::connect;
use super::stream::Replayed;
use crate::telemetry::AskAnswer;

/// Whose connection it is.
pub(crate) struct Caller<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) door: &'a Door,
    pub(crate) slot: &'a Slot,
    /// It is TLS: a client that closes its side has gone.
    pub(crate) sealed: bool,
}

/// Serves a connection to its end. All that can be said to a client that cannot be served is to hang up.
pub(crate) async fn serve(mut client: TcpStream, before: Bytes, caller: Caller<'_>) {
    let Caller { shared, door, slot, sealed } = caller;
    let behind = door.behind();
    let ask = Ask::begin(shared, &behind.apps, door.readiness(Way::WakePort));
    let until = Instant::now() + behind.manners.wake_timeout;
    let mut read = BytesMut::from(before);
    // A client that said something and closed its side may still wait for an answer; one that said nothing has gone.
    let leaves_by_closing = sealed || read.is_empty();
    let wait = Hold { shared, door, slot, ask: &ask, goal: Goal::Pass };
    let held = tokio::select! {
        biased;
        held = wait.until(until, OnLeave::WaitOn) => held,
        () = gone(&mut client, &mut read, shared.limits.read_ahead, leaves_by_closing) => return,
    };
    let answer = match held {
        Held::Ready => {
            slot.settle();
            match connect(shared, door, Some(&ask), until).await {
                Ok(pod) => {
                    ask.end(AskAnswer::Passed);
                    let client = Replayed::plain(read.freeze(), client);
                    let mut client = client.cut_after(shared.limits.write_stall);
                    let mut pod = Replayed::plain(Bytes::new(), pod);
                    if let Err(error) = copy_bidirectional(&mut client, &mut pod).await {
                        tracing::trace!(%error, "a passed connection broke");
                    }
                    return;
                }
                Err(_) => AskAnswer::TimedOut,
            }
        }
        Held::Failed { .. } => AskAnswer::Failed,
        Held::TooLong => AskAnswer::TimedOut,
        Held::Shed => AskAnswer::Shed,
        Held::Leaving => AskAnswer::Leaving,
    };
    ask.end(answer);
}

/// Reads ahead, within a bound, and ends when the client has gone.
async fn gone(client: &mut TcpStream, read: &mut BytesMut, room: usize, leaves_by_closing: bool) {
    while read.len() < room {
        match client.read_buf(read).await {
            Ok(0) if leaves_by_closing => return,
            Ok(0) => break,
            Ok(_) => {}
            Err(_) => return,
        }
    }
    std::future::pending::<()>().await;
}
