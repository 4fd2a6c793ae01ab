//! What the machine must have before anything is started, said in one message.

use anyhow::{Result, bail};
use tokio::process::Command;

use super::cluster::Cluster;
use super::progress;

/// The oldest Go that builds Kubernetes 1.34 and the other parts (Prometheus 3.16, the newest of them, asks for 1.25).
const OLDEST_GO: (u32, u32) = (1, 25);

/// Checks the machine and installs missing Debian packages; all that is wrong is told at once.
pub(crate) async fn check(cluster: &Cluster) -> Result<()> {
    let mut wrong = Vec::new();
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        wrong.push(format!(
            "needs x86-64 Linux, this is {} on {}: run it in a virtual machine",
            std::env::consts::OS,
            std::env::consts::ARCH
        ));
    }
    if !rustix::process::geteuid().is_root() {
        wrong.push(
            "needs root, for network namespaces and containers: run it with sudo -E, or in a virtual machine"
                .to_owned(),
        );
    }
    if let Err(error) = check_go().await {
        wrong.push(error.to_string());
    }
    if !wrong.is_empty() {
        bail!("the end-to-end tests cannot run here:\n  {}", wrong.join("\n  "));
    }
    progress::run("checking Debian packages", &mut cluster.script("packages")).await
}

async fn check_go() -> Result<()> {
    let (major, minor) = OLDEST_GO;
    let wanted =
        format!("needs Go {major}.{minor} or newer in PATH, to build Kubernetes (https://go.dev/dl)");
    let Ok(output) = Command::new("go").args(["env", "GOVERSION"]).output().await else {
        bail!("{wanted}; there is no `go`");
    };
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match go_version(&version) {
        Some(found) if found >= OLDEST_GO => Ok(()),
        _ => bail!("{wanted}; this is {version:?}"),
    }
}

/// `go1.26.8` is (1, 26).
fn go_version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.strip_prefix("go")?.split('.');
    let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    Some((digits(parts.next()?)?, digits(parts.next()?)?))
}

#[cfg(test)]
mod tests {
    use super::go_version;

    #[test]
    fn the_go_version_is_read_from_releases_and_candidates() {
        assert_eq!(go_version("go1.26.8"), Some((1, 26)));
        assert_eq!(go_version("go1.27rc1"), Some((1, 27)));
        assert_eq!(go_version("devel"), None);
    }
}
