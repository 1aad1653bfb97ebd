//! Who may come in: identity, role and a place, asked of every call before anything is done for it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Status};

use super::convert::status;
use super::listen::{Caller, Callers};
use crate::failure::{Failure, code};
use crate::session::{self, Role};

/// The door of all services.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    callers: Arc<Callers>,
    places: Arc<Semaphore>,
}

/// A place among the sessions and calls that go on at one time, given back on drop.
#[derive(Debug)]
pub(super) struct Place(#[allow(dead_code)] OwnedSemaphorePermit);

impl Admission {
    /// A door with that many places behind it.
    pub(super) fn new(callers: Arc<Callers>, places: usize) -> Self {
        Self { callers, places: Arc::new(Semaphore::new(places)) }
    }

    /// Who calls, if it may do `what`.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`, or `FORBIDDEN` below the required role.
    pub(super) fn identify<T>(
        &self,
        request: &Request<T>,
        required: Role,
        what: &str,
    ) -> Result<Caller, Status> {
        let caller = self.callers.identify(request)?;
        session::require(caller.role, required, what).map_err(|failure| status(&failure))?;
        Ok(caller)
    }

    /// Who calls, if it may do `what`, and a place for what takes its time.
    ///
    /// # Errors
    /// As [`Admission::identify`]; `OVERLOADED` when there is no place left.
    pub(super) fn admit<T>(
        &self,
        request: &Request<T>,
        required: Role,
        what: &str,
    ) -> Result<(Caller, Place), Status> {
        let caller = self.identify(request, required, what)?;
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            let failure = Failure::new(code::OVERLOADED, "too many sessions")
                .hint("try again when one has ended, or raise sessions_max");
            status(&failure)
        })?;
        Ok((caller, Place(place)))
    }
}
