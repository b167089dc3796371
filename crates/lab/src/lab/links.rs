//! Links that misbehave without being cut: delay, jitter, loss, rate.

use super::Lab;
use crate::error::{Error, Result};
use crate::exec::CLIENT;
use crate::process::wait_for;
use crate::relay::{LaneRule, Link};
use crate::state::State;
use crate::switch::{Direction, Shaped, hardware_address};

const RELAY_ENDS_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);
const LOSS_MAX_PPM: u32 = 1_000_000;
const MILLIS_MAX: u32 = 60_000;

impl Lab {
    /// Makes everything that goes to and from the node pass such a link; what was said of the
    /// node before is replaced. [`Lab::heal`] undoes it.
    pub fn shape(&self, node: &str, link: Link) -> Result<()> {
        let lane = |direction| Shaped { node: node.to_owned(), direction, peer: None, link };
        self.add_shapes(node, vec![lane(Direction::In), lane(Direction::Out)])
    }

    /// As [`Lab::shape`], for one direction and, if given, one peer (a node or `client`) alone.
    pub fn shape_one_way(
        &self,
        node: &str,
        direction: Direction,
        peer: Option<&str>,
        link: Link,
    ) -> Result<()> {
        let peer = peer.map(str::to_owned);
        self.add_shapes(node, vec![Shaped { node: node.to_owned(), direction, peer, link }])
    }

    fn add_shapes(&self, node: &str, shapes: Vec<Shaped>) -> Result<()> {
        check(shapes.iter().map(|shape| shape.link))?;
        self.require_running(node)?;
        self.change(|_, state| {
            state.node(node)?;
            for shape in shapes {
                if let Some(peer) = shape.peer.as_deref().filter(|peer| *peer != CLIENT) {
                    state.node(peer)?;
                }
                state.shapes.retain(|old| !old.same_lane(&shape));
                state.shapes.push(shape);
            }
            self.relay(state, node)
        })
    }

    /// Makes the node's port what the state says: relayed, or straight on the bridge.
    pub(crate) fn relay(&self, state: &mut State, node: &str) -> Result<()> {
        if let Some(old) = state.relays.remove(node) {
            old.kill()?;
            wait_for(RELAY_ENDS_WITHIN, || (!old.alive()).then_some(()));
        }
        let lanes: Vec<LaneRule> = state
            .shapes
            .iter()
            .filter(|shape| shape.node == node)
            .map(|shape| {
                let address = |peer: &String| {
                    if peer == CLIENT { Ok(state.client) } else { Ok(state.node(peer)?.address) }
                };
                let peer = shape.peer.as_ref().map(address).transpose()?;
                let peer = peer.map(hardware_address);
                Ok(LaneRule { direction: shape.direction, peer, link: shape.link })
            })
            .collect::<Result<_>>()?;
        if state.node(node)?.running().is_none() {
            // The cable is out; the relay comes with the power.
            return Ok(());
        }
        self.hall(|hall| {
            if lanes.is_empty() {
                return hall.switch.connect(node);
            }
            let relay = hall.start_relay(state, node, lanes)?;
            state.relays.insert(node.to_owned(), relay);
            Ok(())
        })
    }

    /// Removes all that is said of links of this node; its own and those of others to it.
    pub(crate) fn forget_shapes(&self, state: &mut State, node: &str) -> Result<()> {
        let concerned = |shape: &Shaped| {
            shape.node == node || shape.peer.as_deref().is_some_and(|peer| peer == node)
        };
        let mut ports: Vec<String> = state
            .shapes
            .iter()
            .filter(|shape| concerned(shape))
            .map(|shape| shape.node.clone())
            .collect();
        state.shapes.retain(|shape| !concerned(shape));
        ports.sort();
        ports.dedup();
        ports.iter().try_for_each(|port| self.relay(state, port))
    }
}

fn check(mut links: impl Iterator<Item = Link>) -> Result<()> {
    let refuse =
        |what, value: u32, fix| Err(Error::BadOption { what, value: value.to_string(), fix });
    links.try_for_each(|link| match link {
        Link { loss_ppm, .. } if loss_ppm > LOSS_MAX_PPM => {
            refuse("loss", loss_ppm, "give at most 1000000 of a million")
        }
        Link { delay_ms, .. } if delay_ms > MILLIS_MAX => {
            refuse("delay", delay_ms, "give at most 60000 ms")
        }
        Link { jitter_ms, .. } if jitter_ms > MILLIS_MAX => {
            refuse("jitter", jitter_ms, "give at most 60000 ms")
        }
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_links_are_refused() {
        assert!(check([Link::default()].into_iter()).is_ok());
        for link in [
            Link { loss_ppm: LOSS_MAX_PPM + 1, ..Link::default() },
            Link { delay_ms: MILLIS_MAX + 1, ..Link::default() },
            Link { jitter_ms: MILLIS_MAX + 1, ..Link::default() },
        ] {
            assert!(check([link].into_iter()).is_err(), "{link:?}");
        }
    }
}
