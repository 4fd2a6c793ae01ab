//! Who is sent back as soon as a pod is ready, and finds proxies and members that have not heard of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures::future::join_all;
use kubenap_sandbox::{Effect, Fault, Settings as SandboxSettings};

use crate::visitor;
use crate::world::{Pace, World, host};

/// Asks at the ingress until it is not sent back any more: how often it was, when first, and the last status.
async fn visit(world: &World, at: SocketAddr, nth: usize) -> (usize, Duration, u16) {
    let (begun, mut redirects, mut first) = (world.elapsed(), 0, Duration::ZERO);
    loop {
        let reply = visitor::get(at, &host("web"), &format!("/{nth}")).await;
        if reply.status != 307 || redirects == 9 {
            return (redirects, first, reply.status);
        }
        redirects += 1;
        if redirects == 1 {
            first = world.elapsed().saturating_sub(begun);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_sent_back_when_the_pod_is_ready_and_passed_as_long_as_the_service_has_not_followed() {
    let late = SandboxSettings { slice_delay: Duration::from_secs(5), ..SandboxSettings::default() };
    let pod_takes = late.ready_delay;
    let world = World::with(Pace::QUICK, &late);
    world.app("web", 1, &[]).await;
    world.pass(10).await;
    let ingress = world.sandbox.ingress(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let (_one, _two) = (world.join(1).await, world.join(2).await);
    world.asleep("web").await;
    world.pass(10).await;
    let (redirects, first, status) = visit(&world, ingress.address(), 0).await;
    assert_eq!((redirects, status), (1, 200), "{}", world.show());
    assert!(first < pod_takes + Duration::from_millis(50), "sent back after {first:?}");
    assert_eq!(world.members_in("web").len(), 2, "nobody leaves before the Service leads to the app");
    world.awake("web", 1).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_sent_back_twice_where_one_member_hears_of_the_pod_later_than_the_other() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let ingress = world.sandbox.ingress(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let (_one, _two) = (world.join(1).await, world.join(2).await);
    for round in 0..4 {
        world.asleep("web").await;
        world.pass(5).await;
        // One watch of the two lags behind, from the pod's first event on.
        let behind = Fault::new(Effect::DelayEvent(Duration::from_millis(800)));
        world.sandbox.faults().inject(behind.verb("watch").resource("pods").times(1));
        let visits = join_all((0..6).map(|nth| visit(&world, ingress.address(), nth))).await;
        for (redirects, first, status) in &visits {
            assert!(*status == 200 && *redirects <= 1, "round {round}: {visits:?}\n{}", world.show());
            assert!(*first < Duration::from_millis(900), "round {round}: {visits:?}");
        }
        assert!(visits.iter().any(|(redirects, ..)| *redirects == 1), "round {round}: {visits:?}");
        world.sandbox.faults().clear();
        world.awake("web", 1).await;
    }
}
