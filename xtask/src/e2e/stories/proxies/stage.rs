//! What the suite plays on: for each way in two apps, the proxy in front of them, and the sheet that is filled in.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};

use super::hook;
use super::process::{Process, Programs};
use super::way::{Entry, Listen, Program, Site, WAYS, Way};
use crate::e2e::app::App;
use crate::e2e::http::Caller;
use crate::e2e::metrics;
use crate::e2e::say;
use crate::e2e::world::{Space, eventually};

/// An app that nobody asks for; whoever wakes it was led astray.
pub(super) const BYSTANDER: &str = "bystander";
/// As `kubenap render` says that its objects are to be applied.
const MANAGER: &str = "--field-manager=kubenap-proxy";
/// Whose the proxies' objects are.
const OWNER: &str = "--field-manager=proxies";
/// How many apps are put to sleep at a time.
const NAPS: usize = 12;
/// As in the story of fifty naps: an app that serves on for less loses something of its own in any roll-out.
const SERVES_ON: Duration = Duration::from_secs(5);
/// Without substitution kube-proxy leads to the last pod until its readiness has failed, three times in a row and heard of.
const SERVES_ON_UNREADY: Duration = Duration::from_secs(8);
/// Longer than the pod itself takes, so that whatever is asked at once is asked before the app is ready.
const BOOT: Duration = Duration::from_millis(1500);
/// A wake of the slow app takes longer than its proxy waits, which waits longer than `KubeNap` holds.
const SLOW_BOOT: Duration = Duration::from_secs(9);
const SLOW_TIMEOUT: Duration = Duration::from_secs(7);
const SLOW_HOLD: &str = "4s";
const TIMEOUT: Duration = Duration::from_secs(75);

/// A cell's place in the matrix: the way's name and the case's.
pub(super) type Place = (&'static str, &'static str);

/// One way in with its apps.
pub(super) struct Lane {
    pub(super) way: &'static Way,
    /// The app of most cases.
    pub(super) site: Site,
    /// The one that takes long to wake.
    pub(super) slow: Site,
    processes: RefCell<Vec<Process>>,
    objects: Vec<Value>,
    /// What `kubenap render` gave, as it was applied.
    applied: RefCell<Vec<Value>>,
    before: RefCell<Vec<Value>>,
}

/// The story's stage.
pub(super) struct Stage<'a> {
    pub(super) space: &'a Space,
    pub(super) lanes: Vec<Lane>,
    /// What happened, by way and case; an error is one that fails the story.
    cells: RefCell<BTreeMap<Place, Result<String, String>>>,
}

impl<'a> Stage<'a> {
    /// Deploys every app, puts every proxy before its own, and waits until each leads to them.
    pub(super) async fn set(
        space: &'a Space,
        programs: &Programs,
        wanted: impl Fn(&Way) -> bool,
    ) -> Result<Self> {
        Self::set_with(space, programs, wanted, SLOW_TIMEOUT).await
    }

    /// The same where the slow apps' proxies wait for them.
    pub(super) async fn set_patient(
        space: &'a Space,
        programs: &Programs,
        wanted: impl Fn(&Way) -> bool,
    ) -> Result<Self> {
        Self::set_with(space, programs, wanted, TIMEOUT).await
    }

    async fn set_with(
        space: &'a Space,
        programs: &Programs,
        wanted: impl Fn(&Way) -> bool,
        slow_timeout: Duration,
    ) -> Result<Self> {
        let ways = WAYS.iter().filter(|way| wanted(way));
        let lanes = try_join_all(ways.map(|way| lane(space, way, slow_timeout))).await?;
        for lane in &lanes {
            lane.open(space, programs).await.with_context(|| lane.way.name)?;
        }
        let stage = Self { space, lanes, cells: RefCell::default() };
        try_join_all(stage.lanes.iter().map(Lane::until_open)).await?;
        Ok(stage)
    }

    /// Tells every proxy what `kubenap render` says, where that is its form.
    pub(super) async fn hook(&self, programs: &Programs) -> Result<()> {
        for lane in &self.lanes {
            lane.hook(self.space, programs).await.with_context(|| lane.way.name)?;
        }
        try_join_all(self.lanes.iter().map(Lane::until_open)).await.map(drop)
    }

    /// Takes it back.
    pub(super) async fn unhook(&self, programs: &Programs) -> Result<()> {
        for lane in self.lanes.iter().filter(|lane| !lane.way.substitutes()) {
            lane.unhook(self.space, programs).await.with_context(|| lane.way.name)?;
        }
        Ok(())
    }

    /// Puts all these apps to sleep.
    pub(super) async fn sleep(&self, apps: impl IntoIterator<Item = &str>) -> Result<()> {
        let apps: Vec<_> = apps.into_iter().collect();
        let naps = apps.iter().map(|app| async move {
            self.space.nap(app).await?;
            self.space.until_asleep(app, app).await
        });
        futures::stream::iter(naps).buffer_unordered(NAPS).try_collect().await
    }

    /// Plays a case on every lane at once, and writes down what happened.
    pub(super) async fn play(&self, case: &'static str, act: impl AsyncFn(&Lane) -> Result<String>) {
        let acts = self.lanes.iter().map(async |lane| {
            let said = match lane.way.impossible(case) {
                Some(why) => Ok(format!("not possible: {why}")),
                None => act(lane).await.map_err(|error| format!("{error:#}")),
            };
            self.write(lane, case, said);
        });
        futures::future::join_all(acts).await;
    }

    fn write(&self, lane: &Lane, case: &'static str, said: Result<String, String>) {
        match &said {
            Ok(cell) => say(&format!("   {} {case}: {cell}", lane.way.name)),
            Err(error) => say(&format!("   {} {case}: FAILED: {error}", lane.way.name)),
        }
        self.cells.borrow_mut().insert((lane.way.name, case), said);
    }

    /// All that happened; fails with every case that failed.
    pub(super) fn end(self) -> Result<BTreeMap<Place, String>> {
        let cells = self.cells.into_inner();
        let failed = cells.iter().filter_map(|((way, case), said)| {
            said.as_ref().err().map(|error| format!("{way}, {case}: {error}"))
        });
        let failed: Vec<_> = failed.collect();
        ensure!(failed.is_empty(), "{} of {} failed:\n{}", failed.len(), cells.len(), failed.join("\n"));
        Ok(cells.into_iter().filter_map(|(key, said)| Some((key, said.ok()?))).collect())
    }
}

impl Lane {
    /// A visitor of the app, one connection for each request.
    pub(super) fn visitor(&self) -> Caller {
        Caller::fresh(self.site.http, &self.site.host)
    }

    /// A visitor of the slow one.
    pub(super) fn patient_visitor(&self) -> Caller {
        Caller::fresh(self.slow.http, &self.slow.host)
    }

    /// How many requests for the app `KubeNap` has answered, by all members that live.
    pub(super) async fn asks(&self, space: &Space) -> Result<f64> {
        asks(space, &self.site.app).await
    }

    /// Fails unless the proxy is configured as it was before `KubeNap` had anything to do with it.
    pub(super) async fn ensure_as_it_was(&self, space: &Space) -> Result<()> {
        for process in self.processes.borrow_mut().iter_mut() {
            process.ensure_as_started()?;
        }
        let now = self.look(space).await?;
        ensure!(now == *self.before.borrow(), "before: {:?}\nnow: {now:?}", self.before.borrow());
        Ok(())
    }

    /// Puts the proxy before its apps, as if there were no `KubeNap`.
    pub(super) async fn open(&self, space: &Space, programs: &Programs) -> Result<()> {
        match self.way.entry {
            Entry::Objects(_) | Entry::Applied { .. } => {
                let file = self.list(space, &self.objects)?;
                // As GitOps does. After an `apply` on the client's side, kubectl would make whoever applies on the server's
                // side next the owner of all of it.
                space.kubectl(&["apply", "--server-side", OWNER, "-f", &file]).await?;
            }
            Entry::File(write) => {
                let sites = [self.site.clone(), self.slow.clone()];
                let listen = Self::listen(space, &self.site);
                self.start(space, programs, vec![(write(&listen, &sites)?, listen)]).await?;
            }
            Entry::Rendered { before, .. } => {
                let mut texts = Vec::new();
                for site in [&self.site, &self.slow] {
                    let listen = Self::listen(space, site);
                    texts.push((before(&listen, std::slice::from_ref(site))?, listen));
                }
                self.start(space, programs, texts).await?;
            }
        }
        let before = self.look(space).await?;
        *self.before.borrow_mut() = before;
        Ok(())
    }

    /// Tells the proxy what `kubenap render` says, if that is this way's form.
    pub(super) async fn hook(&self, space: &Space, programs: &Programs) -> Result<()> {
        self.hook_these(space, programs, &[&self.site, &self.slow]).await
    }

    /// The same for the first app alone; the other one stays as it was before.
    pub(super) async fn hook_one(&self, space: &Space, programs: &Programs) -> Result<()> {
        self.hook_these(space, programs, &[&self.site]).await
    }

    async fn hook_these(&self, space: &Space, programs: &Programs, sites: &[&Site]) -> Result<()> {
        let program = self.way.program;
        match self.way.entry {
            Entry::Objects(_) | Entry::File(_) => Ok(()),
            Entry::Rendered { proxy, form, around, before } => {
                let mut texts = Vec::new();
                for site in [&self.site, &self.slow] {
                    let listen = Self::listen(space, site);
                    let text = if sites.iter().any(|told| told.app == site.app) {
                        around(&listen, &hook::ask(space, program, proxy, form, site).await?)?
                    } else {
                        before(&listen, std::slice::from_ref(site))?
                    };
                    texts.push((text, listen));
                }
                self.start(space, programs, texts).await
            }
            Entry::Applied { form, .. } => {
                let mut objects = Vec::new();
                for site in sites {
                    let told = hook::ask(space, program, program.name(), form, site).await?;
                    objects.extend(hook::objects(&told));
                }
                let file = self.list(space, &objects)?;
                // Some of them live beside KubeNap, and all of them name their namespace.
                space.world.kubectl(&["apply", "--server-side", self.applies_as(), "-f", &file]).await?;
                *self.applied.borrow_mut() = objects;
                if self.way.shows_its_hook() {
                    let proxy = json!({"metadata": {"annotations": {"kubenap/proxy": program.name()}}});
                    try_join_all(sites.iter().map(|site| space.patch(&site.app, &proxy))).await?;
                }
                Ok(())
            }
        }
    }

    /// Takes that back.
    pub(super) async fn unhook(&self, space: &Space, programs: &Programs) -> Result<()> {
        let applied = self.applied.take();
        if applied.is_empty() {
            return self.open(space, programs).await;
        }
        for mut object in applied {
            if object["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "kubenap" {
                let file = self.list(space, &[object])?;
                space.world.kubectl(&["delete", "--ignore-not-found", "-f", &file]).await?;
            } else if self.applies_as() == OWNER {
                let file = self.list(space, &self.objects)?;
                space.kubectl(&["apply", "--server-side", OWNER, "-f", &file]).await?;
            } else {
                // Somebody else's object: none of these annotations any more.
                object["metadata"].as_object_mut().context("no metadata")?.remove("annotations");
                let file = self.list(space, &[object])?;
                space.world.kubectl(&["apply", "--server-side", MANAGER, "-f", &file]).await?;
            }
        }
        Ok(())
    }

    /// An `HTTPRoute`'s rules are one list, which only its owner can write.
    fn applies_as(&self) -> &'static str {
        if self.way.program == Program::EnvoyGateway { OWNER } else { MANAGER }
    }

    fn list(&self, space: &Space, objects: &[Value]) -> Result<String> {
        let file = space.world.cluster.logs().join(format!("objects-{}.json", self.way.name));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        fs::write(&file, list.to_string()).with_context(|| format!("write {}", file.display()))?;
        Ok(file.display().to_string())
    }

    async fn start(&self, space: &Space, programs: &Programs, texts: Vec<(String, Listen)>) -> Result<()> {
        for process in self.processes.take() {
            process.end().await?;
        }
        for (text, listen) in texts {
            let process = programs.start(&space.world.cluster, self.way.program, &listen, text).await?;
            self.processes.borrow_mut().push(process);
        }
        Ok(())
    }

    fn listen(space: &Space, site: &Site) -> Listen {
        let folder = space.world.cluster.logs().join("proxies").join(&site.app);
        Listen { http: site.http, grpc: site.grpc, folder }
    }

    /// Waits until it leads to both.
    pub(super) async fn until_open(&self) -> Result<()> {
        for mut visitor in [self.visitor(), self.patient_visitor()] {
            let what = format!("{} leads to its app", self.way.name);
            eventually(&what, Duration::from_secs(180), async || {
                visitor.send(&crate::e2e::http::Call::get("/")).await?.ensure_from_app()
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until what comes by the proxy goes to the app, and nothing of it to `KubeNap` any more.
    pub(super) async fn until_direct(&self, space: &Space) -> Result<()> {
        eventually(&format!("{} leads past KubeNap", self.way.name), Duration::from_secs(60), async || {
            let before = self.asks(space).await?;
            let mut kept = Caller::kept(self.site.http, &self.site.host);
            for number in 0..5 {
                for visitor in [&mut self.visitor(), &mut kept] {
                    let call = crate::e2e::http::Call::get(format!("/past?n={number}"));
                    visitor.send(&call).await?.ensure_from_app()?;
                }
            }
            let through = self.asks(space).await? - before;
            ensure!(through.abs() < 0.5, "{through} of 10 requests reached KubeNap");
            Ok(())
        })
        .await
    }

    /// What people have written of the proxy's objects: everything but what the API server adds.
    async fn look(&self, space: &Space) -> Result<Vec<Value>> {
        let mut seen = Vec::new();
        for object in &self.objects {
            let (kind, name) = (&object["kind"], &object["metadata"]["name"]);
            let (kind, name) = (kind.as_str().unwrap_or_default(), name.as_str().unwrap_or_default());
            let text = space.kubectl(&["get", kind, name, "-o", "json"]).await?;
            let mut found: Value = serde_json::from_str(&text).context("read what kubectl printed")?;
            let kept = ["name", "labels", "annotations", "finalizers"];
            let metadata = found["metadata"].as_object_mut().context("an object without metadata")?;
            metadata.retain(|field, _| kept.contains(&field.as_str()));
            seen.push(json!({"metadata": found["metadata"], "spec": found["spec"]}));
        }
        Ok(seen)
    }
}

/// How many requests for an app `KubeNap` has answered, by all members that live.
pub(super) async fn asks(space: &Space, app: &str) -> Result<f64> {
    let mut sum = 0.0;
    for member in space.world.members.living().await? {
        let mut samples = space.world.members.metrics(&member.identity).await?;
        let mine = |label: &str, value: &str, sample: &metrics::Sample| {
            sample.labels.get(label).is_some_and(|found| found == value)
        };
        samples.retain(|sample| mine("app", app, sample) && mine("namespace", &space.namespace, sample));
        sum += metrics::sum(&samples, "kubenap_asks_total");
    }
    Ok(sum)
}

/// The bystander's host, which Traefik knows.
pub(super) fn bystander_host() -> String {
    format!("{BYSTANDER}.proxies.test")
}

async fn lane(space: &Space, way: &'static Way, slow_timeout: Duration) -> Result<Lane> {
    let app = App::new(way.name).service(service(way.name)).boot(BOOT).stop(SERVES_ON);
    let slow_name = format!("{}-slow", way.name);
    let slow = App::new(&slow_name).service(service(&slow_name)).boot(SLOW_BOOT).stop(Duration::ZERO);
    let slow = slow.annotate("holdFor", SLOW_HOLD);
    let unsubstituted = |app: App| {
        let app = app.annotate("substitute", "false");
        if way.shows_its_hook() { app } else { app.annotate("hook", "declared") }
    };
    let (app, slow) = if way.substitutes() {
        (app, slow)
    } else {
        (unsubstituted(app.stop(SERVES_ON_UNREADY).unready_at_stop()), unsubstituted(slow))
    };
    tokio::try_join!(space.deploy(&app), space.deploy(&slow))?;
    let (http, grpc) = way.ports(false);
    let site = site(space, way, way.name, (http, grpc), TIMEOUT).await?;
    let slow = self::site(space, way, &slow_name, way.ports(true), slow_timeout).await?;
    let objects = match way.entry {
        Entry::Objects(objects) | Entry::Applied { before: objects, .. } => {
            [objects(&site), objects(&slow)].concat()
        }
        Entry::File(_) | Entry::Rendered { .. } => Vec::new(),
    };
    let (processes, applied, before) = (RefCell::default(), RefCell::default(), RefCell::default());
    Ok(Lane { way, site, slow, processes, objects, applied, before })
}

async fn site(
    space: &Space,
    way: &Way,
    app: &str,
    (http, grpc): (SocketAddr, SocketAddr),
    timeout: Duration,
) -> Result<Site> {
    let host = format!("{app}.proxies.test");
    let cluster_ip = space.cluster_address(app, 80).await?.ip();
    if matches!(way.entry, Entry::Rendered { .. }) {
        hook::register(space, app, &host).await?;
    }
    Ok(Site { app: app.to_owned(), host, cluster_ip, http, grpc, timeout })
}

/// The usual ports, of which the second one says what it speaks.
fn service(app: &str) -> Value {
    json!({
        "selector": {"group": app},
        "ports": [
            {"name": "http", "port": 80, "targetPort": "http"},
            {"name": "alt", "port": 8090, "targetPort": "alt", "appProtocol": "kubernetes.io/h2c"},
        ],
    })
}
