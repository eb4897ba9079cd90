//! Targets of listeners, as an operator sees them.

use std::time::Instant;

use crate::admin::api::{self, ApiError, CheckView, TargetView};
use crate::forward::{TargetSnapshot, TargetState};
use crate::roles::Control;

/// Returns the targets of all forwards.
pub(super) fn targets(control: &Control, now: Instant) -> Vec<TargetView> {
    let listeners = control.targets().into_iter();
    listeners.flat_map(|(name, targets)| targets.list().into_iter().map(move |view| target(&name, view, now))).collect()
}

/// Sets the wanted state of a target; returns the target as it is then.
pub(super) fn set(
    control: &Control,
    listener: &str,
    name: &str,
    state: api::TargetState,
) -> Result<TargetView, ApiError> {
    let state = match state {
        api::TargetState::Ready => TargetState::Ready,
        api::TargetState::Drain => TargetState::Drain,
        api::TargetState::Maint => TargetState::Maint,
    };
    let all = control.targets();
    let Some((_, targets)) = all.iter().find(|(of, _)| of == listener) else {
        let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
        let remedy = format!("listeners with targets are: {}", names.join(", "));
        return Err(ApiError::not_found(format!("there is no listener `{listener}` that has targets"), remedy));
    };
    let found = targets.set_state(name, state);
    let list = targets.list();
    match list.iter().find(|view| view.name == name) {
        Some(view) if found => Ok(target(listener, view.clone(), Instant::now())),
        _ => {
            let names: Vec<_> = list.into_iter().map(|view| view.name).collect();
            let remedy = format!("its targets are: {}", names.join(", "));
            Err(ApiError::not_found(format!("listener `{listener}` has no target `{name}`"), remedy))
        }
    }
}

fn target(listener: &str, view: TargetSnapshot, now: Instant) -> TargetView {
    TargetView {
        listener: listener.to_owned(),
        name: view.name,
        address: view.destination.to_string(),
        up: view.up,
        state: match view.state {
            TargetState::Ready => api::TargetState::Ready,
            TargetState::Drain => api::TargetState::Drain,
            TargetState::Maint => api::TargetState::Maint,
        },
        backup: view.backup,
        connections: view.connections as u64,
        check: view.check.map(|check| CheckView {
            result: check.result.as_str().to_owned(),
            age_seconds: now.saturating_duration_since(check.at).as_secs_f64(),
            round_trip_seconds: check.round_trip.map(|round_trip| round_trip.as_secs_f64()),
        }),
    }
}
