//! How many lines of an access log are read in a second: `cargo run --release -p kubenap-controller --example log_lines`.
#![expect(clippy::print_stdout, reason = "it prints what it has measured")]

use std::io::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use kubenap_controller::activity::{Ask, Credentials, SourceSpec, Target, build};
use kubenap_core::app::AppId;
use tokio::time::Instant;

const LINES: usize = 1_000_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| async {
        Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty()))
    });
    let client = kube::Client::new(nobody, "default");
    let path = std::env::temp_dir().join(format!("kubenap-log-lines-{}", std::process::id()));
    let forms = [
        (
            "upstreaminfo",
            r#"10.0.0.1 - - [14/Nov/2023:22:13:20 +0000] "GET /a/b?c=d HTTP/1.1" 200 12 "-" "Mozilla/5.0 (X11; Linux x86_64)" 80 0.001 [shop-web-80] [] 10.88.0.2:8080 12 0.001 200 abc"#,
        ),
        (
            "traefik",
            r#"10.0.0.1 - - [14/Nov/2023:22:13:20 +0000] "GET /a/b?c=d HTTP/1.1" 200 12 "-" "Mozilla/5.0 (X11; Linux x86_64)" 3 "websecure-shop-web-web-example-com@kubernetes" "http://10.88.0.2:8080" 2ms"#,
        ),
        (
            "json",
            r#"{"ClientAddr":"10.0.0.1:1","DownstreamStatus":200,"Duration":2500000,"KubernetesServiceName":"web","KubernetesServiceNamespace":"shop","RequestPath":"/a/b?c=d","StartUTC":"2023-11-14T22:13:20.1Z","time":"2023-11-14T22:13:20Z"}"#,
        ),
    ];
    for (form, line) in forms {
        std::fs::write(&path, "")?;
        let spec = SourceSpec::read("logs", serde_json::json!({"kind": "logs", "files": [path]}));
        let spec = spec.map_err(|mistakes| mistakes.join("\n"))?;
        let source = build(&[spec], &Credentials::default(), &client)?.remove(0);
        let targets = [Target::of(AppId::new("shop", "web"))].into();
        let mut ask =
            Ask { now: Timestamp::from_second(1_700_000_000)?, targets, history: Duration::from_hours(1) };
        source.poll(&ask).await?;
        let mut file = std::io::BufWriter::new(std::fs::File::options().append(true).open(&path)?);
        for _ in 0..LINES {
            writeln!(file, "{line}")?;
        }
        file.flush()?;
        ask.now = Timestamp::from_second(1_700_000_015)?;
        let begun = Instant::now();
        source.poll(&ask).await?;
        let seconds = begun.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a number to look at")]
        let rate = LINES as f64 / seconds;
        println!("{form}: {LINES} lines in {seconds:.2} s, {rate:.0} lines/s");
    }
    std::fs::remove_file(&path)?;
    Ok(())
}
