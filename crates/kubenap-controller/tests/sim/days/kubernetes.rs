//! Kubernetes' own controllers in the story: each acts on what the one before it has done, a little later.

use std::rc::Rc;

use super::cluster::{Objects, Pod};
use super::story::{Event, Story};

impl Story {
    pub(super) fn kubernetes(&mut self, event: Event) {
        match event {
            Event::Observe if self.objects.observed < self.objects.generation => {
                self.change(Objects::observe);
                let late = self.between(5, 300);
                self.at(late, Event::Reconcile);
            }
            Event::Reconcile => self.reconcile(),
            Event::Ready(uid) => {
                let broken = self.broken;
                let Some(pod) = self.objects.pods.iter().find(|pod| pod.uid == uid) else { return };
                if pod.ready || pod.deleting {
                    return;
                }
                if broken && pod.broken {
                    self.at(10_000, event);
                    return;
                }
                self.change(|objects| {
                    for pod in objects.pods.iter_mut().filter(|pod| pod.uid == uid) {
                        (pod.ready, pod.broken) = (true, false);
                    }
                });
                self.pods_changed();
            }
            Event::Gone(uid) => {
                self.change(|objects| objects.pods.retain(|pod| pod.uid != uid));
                self.pods_changed();
            }
            Event::Show => {
                let ready = |pod: &&Pod| pod.ready && !pod.deleting;
                let shown = self.objects.pods.iter().filter(ready).map(|pod| pod.uid).collect();
                if self.objects.shown != shown {
                    self.change(|objects| objects.shown = shown);
                }
            }
            _ => {}
        }
    }

    fn pods_changed(&mut self) {
        let late = self.between(20, 800);
        self.at(late, Event::Show);
        let late = self.between(5, 200);
        self.at(late, Event::Reconcile);
    }

    /// The ReplicaSets' controllers: as many pods as are wanted, of the newest template, one more during a rollout.
    fn reconcile(&mut self) {
        let objects = Rc::clone(&self.objects);
        let wanted = objects.replicas as usize;
        let (mut new, mut old): (Vec<&Pod>, Vec<&Pod>) =
            objects.living().partition(|pod| pod.template == objects.template);
        // Those that are not ready go first.
        for pods in [&mut new, &mut old] {
            pods.sort_by_key(|pod| !pod.ready);
        }
        let ready = new.iter().filter(|pod| pod.ready).count();
        let mut doomed: Vec<u64> = Vec::new();
        doomed.extend(new.iter().skip(wanted).map(|pod| pod.uid));
        // An old pod goes when enough others are ready.
        let keep = wanted.saturating_sub(ready);
        doomed.extend(old.iter().skip(keep).map(|pod| pod.uid));
        let room = if old.is_empty() { wanted } else { (wanted + 1).saturating_sub(old.len().min(keep)) };
        let missing = room.min(wanted).saturating_sub(new.len());
        if !objects.acted || !doomed.is_empty() || missing > 0 {
            let broken = self.broken;
            let fresh: Vec<u64> = (0..missing as u64).map(|nth| objects.clock * 10 + nth).collect();
            let made = fresh.clone();
            self.change(|objects| {
                objects.acted = true;
                for pod in objects.pods.iter_mut().filter(|pod| doomed.contains(&pod.uid)) {
                    pod.deleting = true;
                }
                let template = objects.template;
                let pods =
                    made.into_iter().map(|uid| Pod { uid, template, ready: false, deleting: false, broken });
                objects.pods.extend(pods);
            });
            for uid in fresh {
                let boot = self.between(400, 15_000);
                self.at(boot, Event::Ready(uid));
            }
            for uid in &doomed {
                let rest = self.between(100, 10_000);
                self.at(rest, Event::Gone(*uid));
            }
            if !doomed.is_empty() {
                self.pods_changed();
            }
        }
    }
}
