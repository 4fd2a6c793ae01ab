//! What holds for any facts whatever, however odd: naps are never likelier by knowing more, and nothing panics.

mod facts;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::{AppId, PREFIX, key};
use kubenap_core::breaker::Barred;
use kubenap_core::decide::{Decision, Facts, Here, Timing, decide};
use kubenap_core::policy::{Defaults, Texts, Wish, read};
use kubenap_core::seen::{
    DeploymentSeen, EndpointSeen, Family, HookSeen, Phase, PieceId, PodSeen, Record, Reverts, Scaler, Seen,
    ServicePort, ServiceSeen, Trouble, WakePorts,
};
use kubenap_core::step::{Step, writes};
use kubenap_core::write::{DeploymentPatch, Write};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::facts::{any_activity, any_case, any_key, any_text};

const MEMBERS: [&str; 3] = ["kubenap-0", "kubenap-1", "gone"];

/// Everything that [`Facts`] borrows, and the rest of them.
#[derive(Clone, Debug)]
struct Case {
    labels: Texts,
    annotations: Texts,
    seen: Seen,
    activity: Activity,
    here: Here,
    now: Timestamp,
    opted_in: bool,
    asked: bool,
    in_phase: Duration,
    substituted_for: Duration,
    path_proved: bool,
    wake_address_answers: bool,
    may_arm: bool,
    ports: Option<WakePorts>,
    barred: Option<Barred>,
    push: bool,
}

impl Case {
    fn decide(&self, activity: &Activity) -> (Decision, Vec<Write>) {
        let reading = read(&self.labels, &self.annotations, &Defaults::default());
        let facts = Facts {
            now: self.now,
            app: &AppId::new("shop", "web"),
            reading: &reading,
            opted_in: self.opted_in,
            seen: &self.seen,
            activity,
            here: &self.here,
            asked: self.asked,
            in_phase: self.in_phase,
            waiting: self.in_phase,
            substituted_for: self.substituted_for,
            told_for: self.in_phase,
            path_proved: self.path_proved,
            wake_address_answers: self.wake_address_answers,
            may_arm: self.may_arm,
            ports: self.ports.clone(),
            barred: self.barred.clone(),
            push: self.push,
            reverter: None,
            timing: Timing::default(),
        };
        let decision = decide(&facts);
        let writes = writes(&facts, &decision);
        (decision, writes)
    }

    fn wish(&self) -> Option<Wish> {
        self.annotations.get(key::WISH).and_then(|text| Wish::parse(text))
    }
}

fn naps(decision: &Decision) -> bool {
    matches!(decision.step, Step::Arm { .. } | Step::ScaleDown { .. })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(4_000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_more_source_never_makes_a_nap_likelier(case in any_case(), more in any_activity()) {
        let joined = case.activity.clone().join(more);
        if naps(&case.decide(&joined).0) {
            let (alone, _) = case.decide(&case.activity);
            prop_assert!(naps(&alone), "alone: {alone:?}");
        }
    }

    #[test]
    fn a_blind_source_never_naps(case in any_case(), why in select(&Blind::ALL[..])) {
        let blind = case.activity.clone().join(Activity::blind(why));
        prop_assert!(case.wish().is_some() || !naps(&case.decide(&blind).0));
    }

    #[test]
    fn a_request_never_makes_a_nap_likelier(case in any_case()) {
        let asked = Case { asked: true, ..case.clone() };
        prop_assert!(!naps(&asked.decide(&case.activity).0) || naps(&case.decide(&case.activity).0));
        prop_assert!(case.wish().is_some() || !naps(&asked.decide(&case.activity).0));
    }

    #[test]
    fn whatever_is_seen_only_the_leader_naps_and_only_who_is_opted_in(case in any_case()) {
        let (decision, _) = case.decide(&case.activity);
        prop_assert!(!decision.step.needs_leader() || case.here.leading);
        prop_assert!(!naps(&decision) || (case.opted_in && case.may_arm_or_is_armed()), "{decision:?}");
        prop_assert!(!naps(&decision) || !read(&case.labels, &case.annotations, &Defaults::default()).refuses());
    }

    #[test]
    fn while_the_breaker_bars_no_wake_is_written_and_only_sleepers_notice(case in any_case(), trouble in select(&Trouble::ALL[..])) {
        let barred = Barred { trouble, said: None, left: Duration::from_secs(9) };
        let open = Case { barred: Some(barred), push: false, ..case.clone() };
        let closed = Case { barred: None, push: false, ..case };
        let (with, _) = open.decide(&open.activity);
        prop_assert!(!matches!(with.step, Step::ScaleUp { .. } | Step::Push), "{with:?}");
        let (without, _) = closed.decide(&closed.activity);
        prop_assert!(open.seen.deployment.replicas == 0 || with == without, "{with:?} instead of {without:?}");
    }

    #[test]
    fn an_app_that_is_not_ready_never_naps(case in any_case()) {
        let (decision, _) = case.decide(&case.activity);
        let deployment = &case.seen.deployment;
        prop_assert!(!naps(&decision) || (deployment.ready >= deployment.replicas && case.seen.ready()), "{decision:?}");
    }

    #[test]
    fn an_app_that_somebody_keeps_scaling_up_never_naps(case in any_case(), minutes in vec(0..59u64, 3..6)) {
        // As text, moments before the first year are not understood.
        let mut case = Case { now: case.now.max(Timestamp::UNIX_EPOCH), ..case };
        for ago in minutes {
            let reverts = &mut case.seen.deployment.record.reverts;
            *reverts = Reverts::parse(&format!("{},{} argocd", reverts.text(), case.now - Duration::from_secs(ago * 60)));
        }
        prop_assert!(!naps(&case.decide(&case.activity).0));
    }

    #[test]
    fn a_wake_never_lowers_and_a_nap_never_raises(case in any_case()) {
        let (decision, writes) = case.decide(&case.activity);
        let before = case.seen.deployment.replicas;
        for write in &writes {
            let Write::Deployment(DeploymentPatch { replicas: Some(after), .. }) = write else { continue };
            match decision.step {
                Step::ScaleUp { .. } => prop_assert!(*after >= before.max(1)),
                Step::ScaleDown { restore, .. } => prop_assert!(*after == 0 && restore == before && before > 0),
                _ => prop_assert!(false, "{decision:?} changes the replicas"),
            }
        }
    }

    #[test]
    fn a_write_touches_only_the_replicas_and_kubenaps_own_keys_and_slices(case in any_case()) {
        let (decision, writes) = case.decide(&case.activity);
        for write in &writes {
            match write {
                Write::Deployment(patch) => {
                    prop_assert_eq!(patch.resource_version.as_ref(), Some(&case.seen.deployment.resource_version));
                    for name in patch.set.keys().chain(&patch.clear) {
                        prop_assert!(key::STATE.contains(name) || *name == key::WISH, "{name}");
                        prop_assert!(name.starts_with(PREFIX));
                    }
                    prop_assert!(patch.set.keys().all(|name| !patch.clear.contains(name)), "{patch:?}");
                    prop_assert!(!patch.set.contains_key(key::WISH), "wishes are people's");
                }
                Write::PutSlice { slice, .. } => {
                    prop_assert_eq!(&slice.member, &case.here.name);
                    prop_assert!(slice.addresses.is_subset(&case.here.addresses) && !slice.addresses.is_empty());
                    prop_assert!(slice.addresses.iter().all(|address| Family::of(*address) == slice.family));
                    prop_assert!(!slice.leaving);
                }
                Write::MarkLeaving { slice, resource_version, .. } => {
                    prop_assert_eq!(&slice.member, &case.here.name);
                    prop_assert!(resource_version.is_some());
                }
                Write::DeleteSlice { name, uid, resource_version, .. } => {
                    prop_assert!(uid.is_some() && resource_version.is_some());
                    let slice = case.seen.slices.iter().find(|slice| slice.name == *name);
                    let living = |member: &String| case.here.living.contains(member) && *member != case.here.name;
                    prop_assert!(slice.is_some_and(|slice| !living(&slice.member)), "{decision:?}");
                }
                Write::Attach { app, object } => {
                    prop_assert_eq!(app, &AppId::new("shop", "web"));
                    prop_assert!(case.seen.unapplied.contains(object));
                }
                Write::Detach { app, epoch, piece } => {
                    prop_assert_eq!(app, &AppId::new("shop", "web"));
                    prop_assert_eq!(*epoch, case.seen.epoch("web"));
                    prop_assert!(case.seen.pieces().0.contains(piece));
                }
            }
        }
    }

    #[test]
    fn a_nap_and_a_wake_leave_the_spec_as_it_was(replicas in 1..50u32, epoch in 0..9u64, least in option::of(1..60u32)) {
        let mut case = idle(replicas, epoch);
        case.seen.scaler = least.map(|least| Scaler { name: "HorizontalPodAutoscaler web".into(), least, owns_zero: false });
        let before = case.annotations.clone();
        let steps: Vec<_> = (0..8).map(|_| turn(&mut case)).collect();
        prop_assert!(steps.iter().any(|step| matches!(step, Step::ScaleDown { .. })), "{steps:?}");
        prop_assert!(steps.iter().any(|step| matches!(step, Step::ScaleUp { .. })), "{steps:?}");
        prop_assert_eq!(case.seen.deployment.replicas, replicas.max(least.unwrap_or(1)));
        prop_assert!(case.seen.slices.is_empty());
        let strange = |name: &String| !key::STATE.contains(&name.as_str()) && !before.contains_key(name);
        prop_assert!(!case.annotations.keys().any(strange));
        prop_assert_eq!(Record::read(&case.annotations).restore, None);
    }

    #[test]
    fn what_is_read_from_any_annotations_is_read_the_same_after_a_round(texts in btree_map(any_key(), any_text(), 0..8)) {
        let record = Record::read(&texts);
        prop_assert_eq!(WakePorts::parse(&record.wake_ports.text()), Some(record.wake_ports.clone()));
        prop_assert!(record.restore != Some(0));
    }
}

#[test]
fn the_greatest_epoch_that_an_annotation_can_say_does_no_harm() {
    let greatest = Texts::from([(key::EPOCH.to_owned(), u64::MAX.to_string())]);
    for (replicas, count) in [(2, None), (0, Some("1"))] {
        let mut case = idle(replicas, 0);
        case.annotations.extend(greatest.clone());
        case.annotations.extend(count.map(|count| ("kubenap/replicaCount".to_owned(), count.to_owned())));
        case.seen.deployment.record = Record::read(&case.annotations);
        let (decision, _) = case.decide(&case.activity);
        assert!(matches!(
            decision.step,
            Step::Arm { epoch: u64::MAX, .. } | Step::Record { epoch: u64::MAX, .. }
        ));
    }
}

#[test]
fn random_facts_lead_to_every_step() {
    let mut runner = TestRunner::deterministic();
    let mut steps: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..20_000 {
        let case = any_case().new_tree(&mut runner).unwrap().current();
        let step = format!("{:?}", case.decide(&case.activity).0.step);
        let name = step.split([' ', '{']).next().unwrap_or_default();
        *steps.entry(name.to_owned()).or_default() += 1;
    }
    println!("{steps:?}");
    let rare: Vec<_> = STEPS.iter().filter(|step| steps.get(**step).copied().unwrap_or(0) < 20).collect();
    assert!(rare.is_empty(), "{rare:?} of {steps:?}: the other properties would say little");
}

const STEPS: [&str; 16] = [
    "Attach",
    "Detach",
    "Stay",
    "Arm",
    "Substitute",
    "ScaleDown",
    "Cancel",
    "Record",
    "ScaleUp",
    "Push",
    "MarkLeaving",
    "Withdraw",
    "SweepDead",
    "FinishWake",
    "ClearWish",
    "Forget",
];

impl Case {
    fn may_arm_or_is_armed(&self) -> bool {
        self.may_arm || self.wish().is_some() || self.seen.deployment.record.phase == Some(Phase::Drowsy)
    }
}

/// Quiet, ready, alone, and every window has passed.
fn idle(replicas: u32, epoch: u64) -> Case {
    let now = Timestamp::UNIX_EPOCH + Duration::from_secs(90_000);
    let annotations = Texts::from([(key::EPOCH.to_owned(), epoch.to_string())]);
    let port = ServicePort { name: "http".into(), number: 80, app_protocol: None };
    let seen = Seen {
        deployment: DeploymentSeen {
            replicas,
            pods: replicas,
            updated: replicas,
            ready: replicas,
            record: Record::read(&annotations),
            ..DeploymentSeen::default()
        },
        services: vec![ServiceSeen {
            name: "web".into(),
            uid: "uid".into(),
            ports: vec![port],
            families: BTreeSet::from([Family::V4]),
            ..ServiceSeen::default()
        }],
        endpoints: vec![EndpointSeen {
            service: "web".into(),
            port: "http".into(),
            address: ([10, 1, 0, 1], 8080).into(),
            pod: "pod".into(),
            ready: true,
        }],
        pods: vec![PodSeen { uid: "pod".into(), ready: true, deleting: false, trouble: None }],
        pods_confirmed: true,
        ..Seen::default()
    };
    Case {
        labels: Texts::new(),
        annotations,
        seen,
        activity: Activity::seen(Timestamp::UNIX_EPOCH, now),
        here: Here {
            name: MEMBERS[0].into(),
            addresses: BTreeSet::from([[10, 0, 0, 1].into()]),
            leading: true,
            listening: true,
            living: BTreeSet::from([MEMBERS[0].to_owned()]),
        },
        now,
        opted_in: true,
        asked: false,
        in_phase: Duration::from_secs(1),
        substituted_for: Duration::from_secs(5),
        path_proved: true,
        wake_address_answers: true,
        may_arm: true,
        ports: Some(WakePorts([(("web".to_owned(), 80), 16_000)].into())),
        barred: None,
        push: false,
    }
}

/// The same app, so many turns later.
fn turned(mut case: Case, turns: usize) -> Case {
    for _ in 0..turns {
        turn(&mut case);
    }
    case
}

/// One step, carried out; once it sleeps, there is a request.
fn turn(case: &mut Case) -> Step {
    let (decision, writes) = case.decide(&case.activity);
    for write in writes {
        carry_out(case, write);
    }
    case.asked = decision.step == Step::Stay;
    decision.step
}

fn carry_out(case: &mut Case, write: Write) {
    let slices = &mut case.seen.slices;
    match write {
        Write::Deployment(patch) => {
            case.annotations.retain(|name, _| !patch.clear.contains(name.as_str()));
            case.annotations.extend(patch.set.into_iter().map(|(name, text)| (name.to_owned(), text)));
            case.seen.deployment.replicas = patch.replicas.unwrap_or(case.seen.deployment.replicas);
            case.seen.deployment.record = Record::read(&case.annotations);
        }
        Write::PutSlice { slice, .. } => {
            slices.retain(|known| known.name != slice.name);
            slices.push(slice);
        }
        Write::MarkLeaving { slice, .. } => {
            slices.retain(|known| known.name != slice.name);
            slices.push(slice);
        }
        Write::DeleteSlice { name, .. } => slices.retain(|known| known.name != name),
        Write::Attach { object, .. } => {
            case.seen.applied = case.seen.applied.and([&PieceId::of(&object)]);
            case.seen.unapplied.retain(|known| *known != object);
            case.seen.hook = HookSeen::Seen;
        }
        Write::Detach { piece, .. } => case.seen.applied.0.retain(|known| *known != piece),
    }
}
