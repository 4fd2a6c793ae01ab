//! What a poll costs with 10,000 apps: `cargo run --release -p kubenap-controller --example polls`.
//!
//! The servers write answers that were made before; only the CPU time of the thread that asks is counted.
#![expect(clippy::print_stdout, reason = "it prints what it has measured")]

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kubenap_controller::activity::{Ask, Credentials, SourceSpec, Target, TargetPort, TargetService, build};
use kubenap_core::app::AppId;

const APPS: usize = 10_000;
const INSTANCES: [&str; 3] = ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"];
const START: i64 = 1_700_000_000;
const POLLS: i64 = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let prometheus =
            serve(|question| if question.contains("timestamp") { heartbeat() } else { counters() })?;
        measure("prometheus", &format!("prometheus=http://{prometheus}"), APPS, 0.3).await?;
        let proxy = serve(|_| exposition())?;
        let proxy = format!("ingress=http://{proxy}/metrics");
        measure("ingress, one proxy", &proxy, APPS, 0.3).await?;
        // No app is asked about: what is left is to fetch the page of all services, to read it and to compare.
        measure("ingress, the page alone", &proxy, 0, 0.05).await
    })
}

async fn measure(name: &str, spec: &str, apps: usize, limit: f64) -> Result<(), Box<dyn std::error::Error>> {
    let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty()))
    });
    let client = kube::Client::new(nobody, "default");
    let source = build(&[spec.parse::<SourceSpec>()?], &Credentials::default(), &client)?.remove(0);
    let targets: Arc<[Target]> = (0..apps).map(target).collect();
    let mut spent = Vec::new();
    let mut known = 0;
    for poll in 0..POLLS {
        let now = Timestamp::from_second(START + 15 * poll)?;
        let ask = Ask { now, targets: Arc::clone(&targets), history: Duration::from_mins(10) };
        let before = on_cpu()?;
        let samples = source.poll(&ask).await?;
        spent.push(on_cpu()? - before);
        known = samples.iter().filter(|(_, sample)| sample.activity.blind.is_empty()).count();
    }
    // The first poll reads history and opens connections.
    let mut later = spent.split_off(1);
    later.sort_by(f64::total_cmp);
    let median = later.get(later.len() / 2).copied().unwrap_or(f64::NAN);
    println!(
        "{name}: {apps} apps, {known} of them known, {median:.3} CPU-seconds per poll (at most {limit})"
    );
    Ok(())
}

fn target(number: usize) -> Target {
    let name = format!("app-{number}");
    let service = TargetService {
        namespace: "shop".to_owned(),
        name: name.clone(),
        ports: vec![TargetPort { name: Some("http".to_owned()), number: 80 }],
        ingress_ports: ["80".to_owned()].into(),
        ingresses: vec![("shop".to_owned(), name.clone())],
        ..TargetService::default()
    };
    Target { services: [service].into(), ..Target::of(AppId::new("shop", &name)) }
}

/// How long this thread has been on a CPU, in seconds.
fn on_cpu() -> Result<f64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos: u64 = text.split_whitespace().next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanos).as_secs_f64())
}

fn heartbeat() -> String {
    let rows = INSTANCES.map(|instance| {
        format!(r#"{{"metric":{{"instance":"{instance}","kubenap":"traefik"}},"value":[{START},"{START}"]}}"#)
    });
    vector(&rows.join(","))
}

fn counters() -> String {
    let mut rows = String::new();
    for number in 0..APPS {
        for instance in INSTANCES {
            if !rows.is_empty() {
                rows.push(',');
            }
            // Writing to a string cannot fail.
            write!(rows, r#"{{"metric":{{"instance":"{instance}","kubenap":"traefik","service":"shop-app-{number}-80@kubernetes"}},"value":[{START},"{}"]}}"#, number + 1).unwrap_or(());
        }
    }
    vector(&rows)
}

fn vector(rows: &str) -> String {
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{rows}]}}}}"#)
}

/// What Traefik shows of 10,000 services: for each of them requests, bytes and a histogram.
fn exposition() -> String {
    let mut text =
        "process_start_time_seconds 1.69e9\ntraefik_config_last_reload_success 1.69e9\n".to_owned();
    for number in 0..APPS {
        let labels =
            format!(r#"code="200",method="GET",protocol="http",service="shop-app-{number}-80@kubernetes""#);
        for metric in [
            "requests_total",
            "requests_bytes_total",
            "responses_bytes_total",
            "request_duration_seconds_sum",
            "request_duration_seconds_count",
        ] {
            writeln!(text, "traefik_service_{metric}{{{labels}}} {}", number + 1).unwrap_or(());
        }
        for le in ["0.1", "0.3", "1.2", "5", "+Inf"] {
            writeln!(
                text,
                "traefik_service_request_duration_seconds_bucket{{{labels},le=\"{le}\"}} {}",
                number + 1
            )
            .unwrap_or(());
        }
    }
    text
}

/// Answers by the question's body, on a thread of its own.
fn serve(answer: fn(&str) -> String) -> std::io::Result<std::net::SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // A client that goes away ends its connection.
                talk(stream, answer).unwrap_or(());
            });
        }
    });
    Ok(address)
}

fn talk(stream: TcpStream, answer: fn(&str) -> String) -> std::io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let text = answer(&String::from_utf8_lossy(&body));
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n", text.len());
        writer.write_all(head.as_bytes())?;
        writer.write_all(text.as_bytes())?;
    }
}
