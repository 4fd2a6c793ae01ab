//! Many things at once, by dice: whatever happened, the app ends asleep when quiet and awake when asked.

use std::time::Duration;

use kubenap_controller::run::Running;
use kubenap_sandbox::{Effect, Fault};

use crate::visitor;
use crate::world::World;

/// Dice that fall the same way for the same seed.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

async fn happens(world: &World, members: &mut [Option<Running>; 2], dice: &mut Dice) {
    let fault = |effect, times| world.sandbox.faults().inject(Fault::new(effect).times(times));
    match dice.throw(10) {
        0 => world.annotate("web", "wish", "nap"),
        1 => world.annotate("web", "wish", "forceNap"),
        2 => world.annotate("web", "wish", "wake"),
        3 => drop(visitor::get(world.cluster_ip("web", 80), "web", "/").await),
        4 => fault(Effect::Conflict, 1 + dice.throw(3)),
        5 => fault(Effect::FailAfter(504), 1 + dice.throw(5)),
        6 => fault(Effect::FailBefore(500), 1 + dice.throw(5)),
        7 => world.traffic.visit("web", world.now()),
        chosen => {
            let nth = u8::from(chosen == 9);
            let place = &mut members[usize::from(nth)];
            match place.take() {
                Some(running) if dice.throw(2) == 0 => running.crash(),
                Some(running) => running.leave().await,
                None => *place = Some(world.join(nth + 1).await),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_the_dice_say_it_ends_well() {
    for seed in 0..24 {
        let world = World::quick();
        world.app("web", 2, &[]).await;
        world.pass(1).await;
        let mut dice = Dice(seed);
        let mut members = [Some(world.join(1).await), None];
        for _ in 0..30 {
            happens(&world, &mut members, &mut dice).await;
            tokio::time::sleep(Duration::from_millis(dice.throw(4000))).await;
        }
        world.sandbox.faults().clear();
        for (place, nth) in members.iter_mut().zip([1, 2]) {
            if place.is_none() {
                *place = Some(world.join(nth).await);
            }
        }
        // A wish may be left over that nobody could carry out while nobody lived.
        world.annotate("web", "wish", "wake");
        world.awake("web", 2).await;
        let guard = world.guard("web");
        world.asleep("web").await;
        assert_eq!(
            world.note("web", "restoreReplicas").as_deref(),
            Some("2"),
            "seed {seed}: {}",
            world.show()
        );
        world.until("both stand in", 30, || world.members_in("web").len() == 2).await;
        let reply = visitor::get(world.cluster_ip("web", 80), "web", "/").await;
        assert_eq!(reply.status, 200, "seed {seed}: {reply:?}");
        world.awake("web", 2).await;
        assert_eq!(guard.holes(), 0, "seed {seed}: nobody answered for the app");
    }
}
