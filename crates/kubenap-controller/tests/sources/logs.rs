//! Access logs in files: what a proxy writes is followed through rotation, and nothing that is lost lets an app nap.
#![expect(clippy::unwrap_used, reason = "a scenario that cannot be played has failed")]

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kubenap_controller::activity::{
    Ask, Credentials, Samples, SourceError, SourceSpec, Target, TrafficMetricsSource, build,
};
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::AppId;
use serde_json::{Value, json};

use crate::stage::target;
use crate::stand_in::{World, cluster};

pub(crate) struct Stage {
    folder: PathBuf,
    source: Arc<dyn TrafficMetricsSource>,
    pub(crate) targets: Vec<Target>,
    pub(crate) now: i64,
}

const START: i64 = 1_700_000_000;
pub(crate) const TICK: i64 = 15;

impl Stage {
    pub(crate) fn new(name: &str, settings: &[(&str, Value)]) -> Self {
        let folder = std::env::temp_dir().join(format!("kubenap-logs-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut all = json!({"kind": "logs", "files": [folder.join("access.log")], "every": "1h"});
        for (name, value) in settings {
            all[*name] = value.clone();
        }
        let spec = SourceSpec::read("logs", all).unwrap();
        let client = cluster(Arc::new(Mutex::new(World::default())), 1);
        let source = build(&[spec], &Credentials::default(), &client).unwrap().remove(0);
        let stage =
            Self { folder, source, targets: vec![target("shop", "web"), target("shop", "api")], now: START };
        stage.line(-3000, "shop-other-80", "/", "curl/8");
        stage
    }

    pub(crate) fn write(&self, text: &str) {
        self.open().write_all(text.as_bytes()).unwrap();
    }

    fn open(&self) -> fs::File {
        let file = OpenOptions::new().create(true).append(true).open(self.folder.join("access.log"));
        file.unwrap()
    }

    /// Takes away what is in the log.
    pub(crate) fn empty(&self) {
        fs::write(self.folder.join("access.log"), "").unwrap();
    }

    /// What ingress-nginx writes `ago` seconds from now.
    fn line(&self, ago: i64, upstream: &str, path: &str, agent: &str) {
        let at = Timestamp::from_second(self.now + ago).unwrap().strftime("%d/%b/%Y:%H:%M:%S +0000");
        self.write(&format!(
            "10.0.0.1 - - [{at}] \"GET {path} HTTP/1.1\" 200 12 \"-\" \"{agent}\" 80 0.001 [{upstream}] [] 10.88.0.2:80 12 0.001 200 abc\n"
        ));
    }

    pub(crate) async fn tick(&mut self) -> Result<Samples, SourceError> {
        self.now += TICK;
        self.ask().await
    }

    async fn ask(&self) -> Result<Samples, SourceError> {
        let now = Timestamp::from_second(self.now).unwrap();
        let ask = Ask { now, targets: self.targets.clone().into(), history: Duration::from_hours(1) };
        self.source.poll(&ask).await
    }

    /// Ticks in which only other apps are asked for.
    async fn ticks(&mut self, count: usize) -> Activity {
        let mut last = None;
        for _ in 0..count {
            self.line(TICK, "shop-other-80", "/", "curl/8");
            last = Some(self.tick().await.unwrap());
        }
        last.unwrap().of(&AppId::new("shop", "web"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

pub(crate) fn quiet(activity: &Activity) -> i64 {
    i64::try_from(activity.quiet_since(Timestamp::MIN).as_secs()).unwrap() / TICK
}

#[tokio::test]
async fn a_line_is_activity_and_its_absence_is_quiet_as_long_as_others_come() {
    let mut stage = Stage::new("quiet", &[]);
    assert_eq!(quiet(&stage.ticks(3).await), 202, "the log begins 3000 s before, and has no line of it");
    stage.line(TICK, "shop-web-80", "/", "curl/8");
    assert_eq!(quiet(&stage.ticks(1).await), 0);
    assert_eq!(quiet(&stage.ticks(8).await), 8);
}

#[tokio::test]
async fn an_app_to_which_connections_are_routed_that_no_line_tells_of_stays_awake() {
    let mut stage = Stage::new("unseen", &[]);
    stage.line(0, "shop-web-80", "/", "curl");
    assert!(stage.ticks(3).await.blind.is_empty());
    stage.targets[0].services[0].unseen = true;
    let web = stage.ticks(1).await;
    assert_eq!(web.blind.into_iter().collect::<Vec<_>>(), [Blind::NotMapped]);
    let samples = stage.tick().await.unwrap();
    assert!(samples.looked_for(&stage.targets[0].app)[0].contains("TCPRoute"));
}

#[tokio::test]
async fn silence_is_no_sign_of_life_unless_it_is_said_to_be() {
    for (trust, name) in [(false, "silent"), (true, "trusted")] {
        let mut stage = Stage::new(name, &[("trustSilence", json!(trust))]);
        let known = stage.ticks(3).await;
        for _ in 0..20 {
            stage.tick().await.unwrap();
        }
        let web = stage.ask().await.unwrap().of(&AppId::new("shop", "web"));
        if trust {
            assert_eq!(quiet(&web), quiet(&known) + 20);
        } else {
            assert_eq!(web.watermark, known.watermark);
            assert_eq!(web.blind.into_iter().collect::<Vec<_>>(), [Blind::Stale]);
        }
    }
}

#[tokio::test]
async fn the_start_counts_the_last_hour_by_the_lines_own_times() {
    let mut stage = Stage::new("start", &[]);
    stage.line(-600, "shop-web-80", "/", "curl/8");
    stage.line(-1, "shop-other-80", "/", "curl/8");
    stage.tick().await.unwrap();
    let samples = stage.ask().await.unwrap();
    let web = samples.of(&AppId::new("shop", "web"));
    assert_eq!(web.last_seen, Timestamp::from_second(START - 599).unwrap());
    let api = samples.of(&AppId::new("shop", "api"));
    assert_eq!(api.last_seen, Timestamp::from_second(START - 2999).unwrap(), "where the file begins");
}

#[tokio::test]
async fn rotation_by_rename_loses_nothing_and_truncation_is_a_new_beginning() {
    let mut stage = Stage::new("rotate", &[]);
    stage.ticks(10).await;
    stage.line(TICK, "shop-web-80", "/", "curl/8");
    fs::rename(stage.folder.join("access.log"), stage.folder.join("access.log.1")).unwrap();
    assert_eq!(quiet(&stage.ticks(1).await), 0, "the line stood in the old file");
    assert_eq!(quiet(&stage.ticks(5).await), 5);
    fs::write(stage.folder.join("access.log"), "").unwrap();
    assert_eq!(quiet(&stage.ticks(1).await), 0, "nobody knows what was cut off");
    assert_eq!(quiet(&stage.ticks(4).await), 4);
}

#[tokio::test]
async fn a_request_that_ends_in_the_renamed_file_minutes_later_is_a_use() {
    let mut stage = Stage::new("late", &[]);
    stage.line(TICK, "shop-web-80", "/", "curl/8");
    let mut worker = stage.open();
    stage.ticks(10).await;
    fs::rename(stage.folder.join("access.log"), stage.folder.join("access.log.1")).unwrap();
    // Others go on in the new file.
    assert_eq!(quiet(&stage.ticks(40).await), 49);
    let at = Timestamp::from_second(stage.now).unwrap().strftime("%d/%b/%Y:%H:%M:%S +0000");
    let line = format!(
        "10.0.0.1 - - [{at}] \"GET / HTTP/1.1\" 200 12 \"-\" \"curl/8\" 80 600.1 [shop-web-80] [] 10.88.0.2:80 12 600.1 200 abc\n"
    );
    worker.write_all(line.as_bytes()).unwrap();
    assert_eq!(quiet(&stage.ticks(1).await), 0);
    assert_eq!(quiet(&stage.ticks(3).await), 3);
}

#[tokio::test]
async fn a_request_whose_path_or_agent_is_no_text_is_a_use() {
    let mut stage = Stage::new("latin", &[]);
    stage.line(TICK, "shop-web-80", "/", "curl/8");
    stage.ticks(5).await;
    let line = |stage: &Stage| {
        let at = Timestamp::from_second(stage.now + TICK).unwrap();
        let mut line =
            format!(r#"{{"time":"{at}","namespace":"shop","service":"web","uri":"/caf"#).into_bytes();
        line.extend(b"\xe9\",\"http_user_agent\":\"Z\xfcrich/1\"}\n");
        line
    };
    stage.open().write_all(&line(&stage)).unwrap();
    let web = stage.ticks(1).await;
    assert_eq!((quiet(&web), web.blind.len()), (0, 0));
    for _ in 0..30 {
        stage.open().write_all(&line(&stage)).unwrap();
    }
    let web = stage.ticks(1).await;
    assert_eq!((quiet(&web), web.blind.len()), (0, 0), "they fit");
}

#[tokio::test]
async fn what_is_ignored_is_no_use_and_everything_else_is() {
    let mut stage = Stage::new("ignored", &[]);
    stage.targets[0].ignore_paths = vec!["/health".to_owned()];
    stage.targets[0].ignore_user_agents = vec!["uptimerobot".to_owned()];
    stage.line(TICK, "shop-web-80", "/", "curl/8");
    stage.ticks(1).await;
    for (path, agent) in
        [("/health/live", "curl/8"), ("/", "Mozilla (UptimeRobot/2.0)"), ("/", "kube-probe/1.34")]
    {
        stage.line(TICK, "shop-web-80", path, agent);
    }
    stage.line(TICK, "shop-api-80", "/health/live", "curl/8");
    assert_eq!(quiet(&stage.ticks(1).await), 1);
    let api = stage.ask().await.unwrap().of(&AppId::new("shop", "api"));
    assert_eq!(quiet(&api), 0, "the other app has no such rule");
    stage.line(TICK, "shop-web-80", "/shop", "curl/8");
    assert_eq!(quiet(&stage.ticks(1).await), 0);
}

#[tokio::test]
async fn lines_that_fit_nothing_make_it_blind_when_they_are_many() {
    let mut stage = Stage::new("unfit", &[]);
    stage.ticks(2).await;
    stage.write(&"what is this\n".repeat(19));
    assert_eq!(stage.ticks(1).await.blind.len(), 0);
    stage.write(&"what is this\n".repeat(10));
    assert_eq!(stage.ticks(1).await.blind.into_iter().collect::<Vec<_>>(), [Blind::Partial]);
    for _ in 0..400 {
        stage.line(0, "shop-other-80", "/", "curl/8");
    }
    stage.write(&"I1122 10:00:00.000000 1 main.go:1] the controller's own log\n".repeat(100));
    assert_eq!(stage.ticks(1).await.blind.len(), 0, "they are few again");
}

#[tokio::test]
async fn a_file_that_is_not_there_is_an_error_with_a_hint_and_heals() {
    let mut stage = Stage::new("gone", &[]);
    stage.ticks(3).await;
    fs::remove_file(stage.folder.join("access.log")).unwrap();
    let error = stage.tick().await.unwrap_err().to_string();
    assert!(error.contains("access.log") && error.contains("hint: mount the folder"), "{error}");
    assert!(stage.ticks(2).await.blind.is_empty());
}

#[tokio::test]
async fn a_log_without_names_belongs_to_the_service_that_is_declared_or_to_nobody() {
    let line = |at: i64| {
        let at = Timestamp::from_second(at).unwrap().strftime("%d/%b/%Y:%H:%M:%S +0000");
        format!("10.0.0.1 - - [{at}] \"GET / HTTP/1.1\" 200 12 \"-\" \"curl/8\"\n")
    };
    let mut declared =
        Stage::new("declared", &[("service", json!("shop/web")), ("format", json!("combined"))]);
    fs::write(declared.folder.join("access.log"), line(START - 60)).unwrap();
    declared.tick().await.unwrap();
    declared.write(&line(START + 30));
    let samples = declared.tick().await.unwrap();
    assert_eq!(quiet(&samples.of(&AppId::new("shop", "web"))), 0);
    let mut nobody = Stage::new("nobody", &[]);
    fs::write(nobody.folder.join("access.log"), line(START).repeat(30)).unwrap();
    let web = nobody.tick().await.unwrap().of(&AppId::new("shop", "web"));
    assert!(!web.blind.is_empty());
}

#[tokio::test]
async fn lines_of_another_format_than_the_declared_one_fit_nothing() {
    let mut stage = Stage::new("format", &[("format", json!("json"))]);
    assert!(!stage.ticks(30).await.blind.is_empty(), "no line was read");
    let mut stage = Stage::new("own-format", &[("format", json!("upstreaminfo"))]);
    stage.ticks(30).await;
    stage.line(TICK, "shop-web-80", "/", "curl/8");
    let web = stage.ticks(1).await;
    assert_eq!((quiet(&web), web.blind.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_rotated_twice_between_polls_is_read_in_between() {
    for (every, name, is_seen) in [("2s", "often", true), ("1h", "seldom", false)] {
        let mut stage = Stage::new(name, &[("every", json!(every))]);
        let known = stage.ticks(10).await;
        let [log, moved] = ["access.log", "access.log.1"].map(|name| stage.folder.join(name));
        for upstream in ["shop-other-80", "shop-web-80", "shop-other-80"] {
            fs::rename(&log, &moved).unwrap();
            stage.line(0, upstream, "/", "curl/8");
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let web = stage.ticks(1).await;
        assert_eq!(web.last_seen > known.last_seen, is_seen, "{every}: {web:?}");
    }
}

#[tokio::test]
async fn a_line_from_the_future_makes_it_blind() {
    let mut stage = Stage::new("future", &[]);
    stage.ticks(2).await;
    stage.line(TICK + 300, "shop-web-80", "/", "curl/8");
    stage.tick().await.unwrap();
    let web = stage.ask().await.unwrap().of(&AppId::new("shop", "web"));
    assert_eq!(web.blind.into_iter().collect::<Vec<_>>(), [Blind::ClockOff]);
    assert!(web.last_seen.duration_since(Timestamp::from_second(stage.now).unwrap()) <= SignedDuration::ZERO);
}

#[tokio::test]
async fn hosts_that_clients_make_up_are_bounded_and_then_it_is_blind() {
    let mut stage = Stage::new("hosts", &[]);
    stage.ticks(1).await;
    let at = Timestamp::from_second(stage.now + TICK).unwrap();
    let mut text = String::new();
    for number in 0..100_010 {
        text.push_str(&format!(
            "[{at}] \"GET / HTTP/1.1\" 200 - 0 2 1 1 \"-\" \"curl/8\" \"id\" \"host-{number}.example\" \"10.88.0.2:80\"\n"
        ));
    }
    stage.write(&text);
    assert_eq!(stage.ticks(1).await.blind.into_iter().collect::<Vec<_>>(), [Blind::Partial]);
}
