//! One pod, asked again and again as its kubelet would ask it, until it says that it is ready.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::spec::{HttpGet, ProbeSpec, Readiness};

/// The pause after the first ask that failed; it grows by a fifth each time.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(200);
/// How long one connection to a Service's port may take.
const CONNECT: Duration = Duration::from_secs(1);
/// Begins as a kubelet's does, so that an app that leaves probes out of its logs leaves these out too.
const AGENT: HeaderValue = HeaderValue::from_static("kube-probe/kubenap");

/// Ends when every probe has succeeded and every one of `ports` takes a connection. `asking` bounds how many ask at
/// a time, over all pods. Whoever calls sets the deadline.
pub async fn until_ready(address: IpAddr, readiness: &Readiness, ports: &[u16], asking: &Arc<Semaphore>) {
    let probes = readiness.probes.iter().map(|probe| succeed(address, probe, asking));
    futures::future::join_all(probes).await;
    for port in ports {
        let mut pause = PAUSE;
        while !connects(SocketAddr::new(address, *port), asking).await {
            sleep(pause).await;
            pause = longer(pause);
        }
    }
}

async fn succeed(address: IpAddr, probe: &ProbeSpec, asking: &Arc<Semaphore>) {
    sleep_until(Instant::now() + probe.initial_delay).await;
    let mut pause = PAUSE;
    let mut successes = 0;
    loop {
        let answered = {
            // Never closed.
            let _turn = asking.acquire().await.ok();
            timeout(probe.timeout, once(address, probe)).await.unwrap_or(false)
        };
        successes = if answered { successes + 1 } else { 0 };
        if successes >= probe.successes {
            return;
        }
        // More than one in a row are to show that it lasts.
        sleep(if answered { probe.period } else { pause }).await;
        pause = longer(pause);
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 6 / 5).min(PAUSE_MAX)
}

async fn connects(address: SocketAddr, asking: &Arc<Semaphore>) -> bool {
    let _turn = asking.acquire().await.ok();
    matches!(timeout(CONNECT, TcpStream::connect(address)).await, Ok(Ok(_)))
}

/// Whether one ask succeeds.
async fn once(address: IpAddr, probe: &ProbeSpec) -> bool {
    let to = SocketAddr::new(address, probe.port);
    let Ok(stream) = TcpStream::connect(to).await else { return false };
    let Some(get) = &probe.http else { return true };
    // A redirect may lead to the answer; the kubelet goes there, and says so in its own time.
    status(stream, to, get).await.is_some_and(|status| status.is_success())
}

async fn status(stream: TcpStream, to: SocketAddr, get: &HttpGet) -> Option<StatusCode> {
    let mut request = Request::builder()
        .uri(&*get.path)
        .header(HOST, to.to_string())
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "*/*")
        .body(Empty::<Bytes>::new())
        .ok()?;
    for (name, value) in &get.headers {
        request.headers_mut().insert(name, value.clone());
    }
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    // Beside the answer, so that it ends with it and not after it.
    let mut response = pin!(sender.send_request(request));
    let answer = tokio::select! {
        biased;
        answer = response.as_mut() => answer,
        // It may have ended with the answer, which is then there.
        _ = connection => response.await,
    };
    answer.ok().map(|response| response.status())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    fn spec(port: u16, http: bool, successes: u32) -> Readiness {
        let headers = serde_json::json!([{"name": "X-Probe", "value": "yes"}]);
        let get = serde_json::json!({"path": "/ready", "port": port, "httpHeaders": headers});
        let how = if http { "httpGet" } else { "tcpSocket" };
        let what = if http { get } else { serde_json::json!({"port": port}) };
        let probe = serde_json::json!({how: what, "successThreshold": successes, "periodSeconds": 1});
        let pod = serde_json::json!({"containers": [{"name": "app", "readinessProbe": probe}]});
        Readiness::of(&serde_json::from_value(pod).unwrap()).unwrap()
    }

    /// Answers the first connections with these statuses, and later ones with the last.
    async fn app(
        statuses: &'static [&'static str],
    ) -> (u16, Arc<AtomicUsize>, Arc<std::sync::Mutex<String>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (count, told) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let (counted, ears) = (Arc::clone(&count), Arc::<std::sync::Mutex<String>>::clone(&told));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let length = stream.read(&mut head).await.unwrap_or(0);
                *ears.lock().unwrap() = String::from_utf8_lossy(&head[..length]).into_owned();
                let nth = counted.fetch_add(1, Ordering::SeqCst).min(statuses.len() - 1);
                let answer = format!("HTTP/1.1 {}\r\nContent-Length: 0\r\n\r\n", statuses[nth]);
                stream.write_all(answer.as_bytes()).await.ok();
            }
        });
        (port, count, told)
    }

    /// Whether it is ready within this time.
    async fn ask(readiness: &Readiness, ports: &[u16], within: Duration) -> bool {
        let asking = Arc::new(Semaphore::new(4));
        let done = until_ready(Ipv4Addr::LOCALHOST.into(), readiness, ports, &asking);
        timeout(within, done).await.is_ok()
    }

    /// Longer than what is ready can take on any machine.
    const PATIENCE: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn it_is_asked_until_it_says_yes_and_redirects_and_errors_are_no_yes() {
        let (port, count, heard) = app(&["503 No", "404 No", "302 There", "204 Yes"]).await;
        assert!(ask(&spec(port, true, 1), &[], PATIENCE).await);
        assert_eq!(count.load(Ordering::SeqCst), 4);
        let heard = heard.lock().unwrap().to_ascii_lowercase();
        assert!(heard.starts_with("get /ready http/1.1\r\n") && heard.contains("x-probe: yes"), "{heard}");
        assert!(heard.contains("user-agent: kube-probe/"), "{heard}");
    }

    #[tokio::test]
    async fn a_threshold_of_two_takes_two_in_a_row_a_period_apart() {
        let (port, count, _) = app(&["200 Yes", "500 No", "200 Yes"]).await;
        let begun = Instant::now();
        assert!(ask(&spec(port, true, 2), &[], PATIENCE).await);
        assert_eq!(count.load(Ordering::SeqCst), 4);
        assert!(begun.elapsed() >= Duration::from_secs(2));
    }

    #[tokio::test]
    async fn a_service_port_that_nobody_listens_on_keeps_it_back() {
        let (port, _, _) = app(&["200 Yes"]).await;
        // Nobody else gets it as long as the socket lives.
        let closed = TcpSocket::new_v4().unwrap();
        closed.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let nobody = closed.local_addr().unwrap().port();
        let in_vain = Duration::from_millis(500);
        assert!(ask(&spec(port, false, 1), &[port], PATIENCE).await);
        assert!(!ask(&spec(port, false, 1), &[port, nobody], in_vain).await);
        assert!(!ask(&spec(nobody, false, 1), &[], in_vain).await);
    }
}
