//! Sharing: however many ask for one image at once, there is one pull.
//!
//! The pull runs as a task of its own that all callers watch. It ends early
//! when the last of them goes away. All get its outcome, also a failure:
//! otherwise ten tasks waiting for an unreachable registry would each wait for
//! their own time-out, one after the other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Pull;
use super::options::{Auth, Progress, RegistryOptions};
use crate::error::{Error, Result};
use crate::image::Image;
use crate::reference::Reference;
use crate::store::Inner;

/// Callers with other credentials must not see each other's outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) reference: Reference,
    pub(crate) auth: Option<Auth>,
}

#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<HashMap<Key, Weak<Flight>>>);

#[derive(Debug)]
struct Flight {
    progress: watch::Receiver<Progress>,
    outcome: watch::Receiver<Option<Result<Image>>>,
    task: JoinHandle<()>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Flights {
    fn join(&self, key: Key, store: &Arc<Inner>, options: &RegistryOptions) -> Arc<Flight> {
        // Weak entries stay valid whatever panicked elsewhere.
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = flights.get(&key).and_then(Weak::upgrade);
        // One that has landed tells an old outcome; a new caller wants a new one.
        if let Some(flight) = running.filter(|f| f.outcome.borrow().is_none()) {
            return flight;
        }
        flights.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::new(Flight::launch(key.clone(), Arc::clone(store), options.clone()));
        flights.insert(key, Arc::downgrade(&flight));
        flight
    }
}

impl Flight {
    fn launch(key: Key, store: Arc<Inner>, options: RegistryOptions) -> Self {
        let (progress_tx, progress) = watch::channel(Progress::default());
        let (outcome_tx, outcome) = watch::channel(None);
        let task = tokio::spawn(async move {
            let pulled = Pull::run(store, key.reference, options, key.auth, progress_tx).await;
            outcome_tx.send_replace(Some(pulled));
        });
        Self { progress, outcome, task }
    }
}

/// Pulls, or joins the pull that is under way.
pub(crate) async fn pull(
    store: &Arc<Inner>,
    key: Key,
    options: &RegistryOptions,
    tell: Option<watch::Sender<Progress>>,
) -> Result<Image> {
    let flight = store.flights.join(key, store, options);
    let mut progress = flight.progress.clone();
    let mut outcome = flight.outcome.clone();
    let tell_now = |progress: &mut watch::Receiver<Progress>| {
        if let Some(tell) = &tell {
            tell.send_replace(*progress.borrow_and_update());
        }
    };
    loop {
        tokio::select! {
            landed = outcome.wait_for(Option::is_some) => {
                tell_now(&mut progress);
                let ended = Error::Interrupted { action: "pulling" };
                return match landed {
                    Ok(outcome) => outcome.clone().unwrap_or(Err(ended)),
                    Err(_) => Err(ended),
                };
            }
            Ok(()) = progress.changed() => tell_now(&mut progress),
        }
    }
}
