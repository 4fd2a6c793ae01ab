//! Facts of every kind: likely ones, odd ones, and such as no cluster could show.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::{AppId, key};
use kubenap_core::decide::Here;
use kubenap_core::policy::Texts;
use kubenap_core::seen::{
    DeploymentSeen, EndpointSeen, Family, HookGap, HookSeen, Peer, Phase, Pieces, PodSeen, Record, Reverts,
    Scaler, Seen, ServicePort, ServiceRefusal, ServiceSeen, Slice, Stamp, Trouble, WakePorts,
};
use kubenap_core::step::slice_name;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::{Case, MEMBERS, idle, turned};

/// Half of the cases are of any kind, half are a step of a real nap in which a thing or two is odd.
pub(crate) fn any_case() -> impl Strategy<Value = Case> {
    prop_oneof![
        wild_case(),
        (wild_case(), 0..9usize, vec(0..12u8, 0..3)).prop_map(|(wild, turns, odd)| {
            let mut start = idle(2, 1);
            if wild.seen.hook == HookSeen::Attachable {
                start.annotations.insert("kubenap/substitute".to_owned(), "false".to_owned());
                (start.seen.hook, start.seen.unapplied) = (HookSeen::Attachable, vec![piece()]);
            }
            let mut case = turned(start, turns);
            if wild.path_proved {
                (case.activity, case.now) = (wild.activity, wild.now);
            }
            for what in odd {
                match what {
                    0 => case.seen.slices.clone_from(&wild.seen.slices),
                    1 => case.seen.endpoints.clone_from(&wild.seen.endpoints),
                    2 => case.seen.pods.clone_from(&wild.seen.pods),
                    3 => case.seen.peers.clone_from(&wild.seen.peers),
                    4 => case.seen.scaler.clone_from(&wild.seen.scaler),
                    5 => case.seen.services.clone_from(&wild.seen.services),
                    6 => case.seen.deployment.clone_from(&wild.seen.deployment),
                    7 => case.here.clone_from(&wild.here),
                    8 => case.annotations.extend(wild.annotations.clone()),
                    9 => (case.asked, case.opted_in) = (wild.asked, wild.opted_in),
                    10 => (case.in_phase, case.substituted_for) = (wild.in_phase, wild.substituted_for),
                    _ => (case.may_arm, case.path_proved) = (wild.may_arm, wild.path_proved),
                }
            }
            case
        })
    ]
}

fn wild_case() -> impl Strategy<Value = Case> {
    let likely = || prop_oneof![4 => Just(true), 1 => Just(false)];
    let rarely = || prop_oneof![6 => Just(false), 1 => Just(true)];
    let texts = (any_annotations(), btree_map(Just(key::ENABLED.to_owned()), any_text(), 0..2));
    let bools = (likely(), rarely(), likely(), likely());
    let times = (any_span(), any_span(), any_time());
    (texts, any_seen(), any_activity(), any_here(), bools, times, option::weighted(0.9, any_ports()))
        .prop_map(|((annotations, labels), mut seen, activity, here, bools, times, ports)| {
            // Mostly as it is read; sometimes as no text could say it.
            if seen.deployment.uid != "odd" {
                seen.deployment.record = Record::read(&annotations);
            }
            let (opted_in, asked, path_proved, may_arm) = bools;
            let (in_phase, substituted_for, now) = times;
            Case {
                labels,
                annotations,
                seen,
                activity,
                here,
                now,
                opted_in,
                asked,
                in_phase,
                substituted_for,
                path_proved,
                wake_address_answers: path_proved || may_arm,
                may_arm,
                ports,
                barred: None,
                push: in_phase.as_secs() % 2 == 0,
            }
        })
}

fn any_annotations() -> impl Strategy<Value = Texts> {
    let phase = option::of(select(&Phase::ALL[..]));
    let without = option::weighted(0.3, Just("false".to_owned()));
    let wish = option::weighted(0.2, select(&["nap", "forceNap", "wake"][..]));
    let odd = prop_oneof![4 => Just(Texts::new()), 1 => btree_map(any_key(), any_text(), 0..3)];
    (
        phase,
        option::of(0..4u64),
        option::of(0..5u32),
        option::of(any_ports()),
        wish,
        option::of(any_time()),
        without,
        odd,
    )
        .prop_map(|(phase, epoch, restore, ports, wish, since, without, odd)| {
            let mut texts = Texts::new();
            let mut put = |name: &str, text: Option<String>| {
                texts.extend(text.map(|text| (name.to_owned(), text)));
            };
            put(key::PHASE, phase.map(|phase| phase.text().to_owned()));
            put(key::EPOCH, epoch.map(|epoch| epoch.to_string()));
            put(key::RESTORE, restore.map(|restore| restore.to_string()));
            put(key::WAKE_PORTS, ports.map(|ports| ports.text()));
            put(key::WISH, wish.map(str::to_owned));
            put(key::SINCE, since.map(|since| since.to_string()));
            put("kubenap/substitute", without);
            texts.extend(odd);
            texts
        })
}

pub(crate) fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![
        select(&key::STATE[..]).prop_map(str::to_owned),
        select(kubenap_core::policy::KEYS).prop_map(|key| key.full()),
        "kubenap/[a-zA-Z]{0,12}",
    ]
}

pub(crate) fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,20}", "[0-9]{1,21}", Just("true".to_owned()), Just("18446744073709551615".to_owned())]
}

pub(crate) fn any_activity() -> impl Strategy<Value = Activity> {
    let blind = prop_oneof![4 => Just(BTreeSet::new()), 1 => btree_set(select(&Blind::ALL[..]), 0..2)];
    (any_time(), any_time(), blind).prop_map(|(a, b, blind)| Activity {
        last_seen: a.min(b),
        watermark: a.max(b),
        blind,
    })
}

fn any_time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        20 => (88_000..92_000i64).prop_map(|at| Timestamp::from_second(at).unwrap_or_default()),
        1 => Just(Timestamp::MIN),
        1 => Just(Timestamp::MAX),
    ]
}

fn any_span() -> impl Strategy<Value = Duration> {
    prop_oneof![6 => (0..20u64).prop_map(Duration::from_secs), 1 => Just(Duration::MAX), 1 => Just(Duration::ZERO)]
}

fn any_here() -> impl Strategy<Value = Here> {
    let addresses = btree_set(select(vec![IpAddr::from([10, 0, 0, 1]), IpAddr::from([0u16; 8])]), 0..3);
    let living = btree_set(select(&MEMBERS[..2]), 0..3);
    let bools =
        (prop_oneof![4 => Just(true), 1 => Just(false)], prop_oneof![4 => Just(true), 1 => Just(false)]);
    (addresses, living, bools).prop_map(|(addresses, living, (leading, listening))| Here {
        name: MEMBERS[0].to_owned(),
        addresses,
        leading,
        listening,
        living: living.into_iter().chain([MEMBERS[0]]).map(str::to_owned).collect(),
    })
}

fn any_ports() -> impl Strategy<Value = WakePorts> {
    let service = select(&["web", "api"][..]).prop_map(str::to_owned);
    btree_map((service, select(&[80u16, 443][..])), 16_000..u16::MAX, 0..4).prop_map(|ports| {
        // Distinct, as those that are given are.
        let distinct = ports.into_iter().enumerate();
        WakePorts(
            distinct.map(|(index, (key, _))| (key, 16_000 + u16::try_from(index).unwrap_or(0))).collect(),
        )
    })
}

const HOOKS: [HookSeen; 5] = [
    HookSeen::Unknown,
    HookSeen::Missing(HookGap::NotShown),
    HookSeen::Attachable,
    HookSeen::Declared,
    HookSeen::Seen,
];
/// A hook's only piece.
const PIECE: &str = "v1/Service/shop/kubenap-web";

fn any_seen() -> impl Strategy<Value = Seen> {
    let peer = (select(&Phase::ALL[..]), any::<bool>(), option::of(any_stamp()))
        .prop_map(|(phase, willing, stamp)| Peer { id: AppId::new("shop", "api"), phase, willing, stamp });
    let scaler = (0..5u32, any::<bool>()).prop_map(|(least, owns_zero)| Scaler {
        name: "scaler".into(),
        least,
        owns_zero,
    });
    let lists =
        (vec(any_service(), 1..3), vec(any_slice(), 0..4), vec(any_pod(), 0..3), vec(any_endpoint(), 0..5));
    let rest = (
        option::weighted(0.2, scaler),
        prop_oneof![4 => Just(Vec::new()), 1 => vec(peer, 1..3)],
        prop_oneof![8 => Just(Vec::new()), 1 => vec("[a-z]{1,3}", 1..2)],
        prop_oneof![8 => Just(Vec::new()), 1 => vec("[a-z]{1,3}", 1..2)],
        any::<bool>(),
        select(&HOOKS[..]),
        option::weighted(0.2, any_stamp()),
    );
    (any_deployment(), lists, rest).prop_map(|(deployment, (services, slices, pods, endpoints), rest)| {
        let (scaler, peers, strangers, missing_services, pods_confirmed, hook, remembered) = rest;
        Seen {
            deployment,
            services,
            missing_services,
            missing_ingresses: Vec::new(),
            slices,
            hook,
            hook_refusal: String::new(),
            unapplied: if hook == HookSeen::Attachable { vec![piece()] } else { Vec::new() },
            applied: if pods_confirmed { Pieces::default() } else { Pieces::parse(PIECE) },
            remembered,
            counted: remembered.map_or(0, |stamp| stamp.epoch),
            endpoints,
            pods,
            pods_confirmed: pods_confirmed || strangers.is_empty(),
            scaler,
            peers,
            strangers,
        }
    })
}

fn piece() -> serde_json::Value {
    serde_json::json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "kubenap-web", "namespace": "shop" } })
}

fn any_deployment() -> impl Strategy<Value = DeploymentSeen> {
    let replicas = prop_oneof![3 => Just(2u32), 2 => Just(0), 1 => Just(u32::MAX)];
    let uid = prop_oneof![9 => Just("uid".to_owned()), 1 => Just("odd".to_owned())];
    let wild = (any::<u64>(), option::of(any::<u32>()), option::of(select(&Phase::ALL[..])), any_ports());
    let off = prop_oneof![5 => Just(0u32), 1 => 0..3u32];
    (replicas, uid, wild, off, -1..2i64, [any::<bool>(), any::<bool>(), any::<bool>()]).prop_map(
        |(replicas, uid, (epoch, restore, phase, wake_ports), off, observed, [a, b, c])| DeploymentSeen {
            uid,
            resource_version: "41".to_owned(),
            generation: 1,
            observed_generation: observed.max(1 - i64::from(a)),
            replicas,
            pods: replicas.saturating_add(off / 2),
            updated: replicas.saturating_sub(off),
            ready: replicas.saturating_sub(off),
            paused: a && b && c,
            deleting: a && b && !c,
            refused: (a && !b).then_some(Trouble::Quota),
            probed: b,
            record: Record {
                phase,
                epoch: epoch / 2,
                restore,
                since: None,
                wake_ports,
                reverts: Reverts::default(),
                hook_pieces: if a && c { Pieces::parse(PIECE) } else { Pieces::default() },
                any: c,
            },
        },
    )
}

fn any_service() -> impl Strategy<Value = ServiceSeen> {
    let refusal = option::weighted(0.05, select(&[ServiceRefusal::Headless, ServiceRefusal::NoPorts][..]));
    let families = btree_set(select(&[Family::V4, Family::V6][..]), 0..3);
    (select(&["web", "api"][..]), refusal, vec(any_port(), 1..3), families).prop_map(
        |(name, refusal, ports, families)| ServiceSeen {
            name: name.to_owned(),
            uid: format!("{name}-uid"),
            refusal,
            ports,
            families,
        },
    )
}

fn any_port() -> impl Strategy<Value = ServicePort> {
    select(&[("http", 80u16), ("https", 443)][..]).prop_map(|(name, number)| ServicePort {
        name: name.to_owned(),
        number,
        app_protocol: None,
    })
}

fn any_stamp() -> impl Strategy<Value = Stamp> {
    let epoch = prop_oneof![9 => 0..4u64, 1 => 0..u64::MAX];
    (epoch, 0..5u32).prop_map(|(epoch, restore)| Stamp { epoch, restore })
}

fn any_slice() -> impl Strategy<Value = Slice> {
    let apps = btree_map(select(&["web", "api"][..]).prop_map(str::to_owned), any_stamp(), 0..3);
    (select(&["web", "api"][..]), select(&MEMBERS[..]), apps, any::<bool>(), vec(any_port(), 0..2)).prop_map(
        |(service, member, apps, leaving, ports)| Slice {
            name: slice_name(service, member, Family::V4),
            service: service.to_owned(),
            member: member.to_owned(),
            uid: "slice-uid".to_owned(),
            resource_version: "7".to_owned(),
            family: Family::V4,
            addresses: BTreeSet::from([[10, 0, 0, 1].into()]),
            ports,
            apps,
            leaving,
        },
    )
}

fn any_pod() -> impl Strategy<Value = PodSeen> {
    let trouble = option::weighted(0.2, select(&[Trouble::Image, Trouble::CrashLoop][..]));
    let often = prop_oneof![4 => Just(true), 1 => Just(false)];
    (select(&["a", "b"][..]), often, any::<bool>(), trouble).prop_map(|(uid, ready, deleting, trouble)| {
        PodSeen { uid: uid.to_owned(), ready, deleting: deleting && !ready, trouble }
    })
}

fn any_endpoint() -> impl Strategy<Value = EndpointSeen> {
    let often = prop_oneof![4 => Just(true), 1 => Just(false)];
    (select(&["web", "api"][..]), any_port(), select(&["a", "b", "c"][..]), often).prop_map(
        |(service, port, pod, ready)| EndpointSeen {
            service: service.to_owned(),
            port: port.name,
            address: ([10, 1, 0, 1], 8080).into(),
            pod: pod.to_owned(),
            ready,
        },
    )
}
