//! The limits that the definitions say too, so that the API server finds what is beyond them. Each is explained where it is used.

pub(crate) use super::connection::{OWN_PROPERTIES, SECRET_PROPERTIES};
pub(crate) use super::rewind::DEADLINE_RANGE as REWIND_DEADLINE_RANGE;
pub(crate) use super::tables::TTL_RANGE;
pub(crate) use super::upgrade::{UPGRADE_DEADLINE_RANGE, UPGRADE_OBSERVE_RANGE};
pub(crate) use super::{CHECKPOINT_INTERVAL_RANGE, COMMIT_BYTES_RANGE, COMMIT_INTERVAL_RANGE, STATE_MEMORY_RANGE};
pub(crate) use crate::pipeline::ROUTES_MAX;
