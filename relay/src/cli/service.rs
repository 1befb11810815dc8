//! A relay as a service: signals, and what systemd wants to hear if it started us.
//!
//! SIGTERM and SIGINT stop it gracefully, SIGHUP reads the certificate again. The settings are deliberately not read
//! again: half of them couldn't change without a restart.

use std::convert::Infallible;
use std::io::{self, Write};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::interval;

use super::CliError;
use crate::{Certificate, Config, Pulse, Relay};

/// Serves until a signal says to stop.
pub(super) async fn serve(config: Config) -> Result<(), CliError> {
    // Before anything else, so that an early signal isn't lost.
    let catch = |kind| signal(kind).map_err(CliError::Start);
    let mut terminate = catch(SignalKind::terminate())?;
    let mut interrupt = catch(SignalKind::interrupt())?;
    let hangup = catch(SignalKind::hangup())?;
    let relay = Relay::bind(config).await?;
    announce(&relay);
    tell(&[NotifyState::Ready]);
    let told_to_stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tell(&[NotifyState::Stopping]);
    };
    let (certificate, pulse) = (relay.certificate(), relay.pulse());
    tokio::select! {
        stopped = relay.run(told_to_stop) => Ok(stopped?),
        never = renew(hangup, certificate) => match never {},
        never = watch(pulse) => match never {},
    }
}

fn announce(relay: &Relay) {
    let scheme = if relay.certificate().is_some() { "wss" } else { "ws" };
    let mut stdout = io::stdout().lock();
    // Whoever started us may not be listening; that is no reason not to serve.
    writeln!(stdout, "listening on {scheme}://{}", relay.local_addr()).ok();
    if let Some(address) = relay.metrics_addr() {
        writeln!(stdout, "metrics on http://{address}/metrics").ok();
    }
    stdout.flush().ok();
}

/// Reads the certificate again for each SIGHUP, which otherwise does nothing.
async fn renew(mut hangup: Signal, certificate: Option<Certificate>) -> Infallible {
    loop {
        if hangup.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        let Some(certificate) = certificate.clone() else {
            tracing::info!("nothing to read again: there is no certificate");
            continue;
        };
        match spawn_blocking(move || certificate.reload()).await {
            Ok(Ok(())) => tracing::info!("certificate read again"),
            Ok(Err(error)) => tracing::error!(%error, "the certificate can't be used; the old one stays"),
            Err(_) => {}
        }
    }
}

/// Tells systemd that we live as long as the office does: a relay whose sockets are open while nothing moves is worse
/// than one that is started again.
async fn watch(pulse: Pulse) -> Infallible {
    let Some(deadline) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut beats = interval((deadline / 3).max(Duration::from_millis(100)));
    loop {
        beats.tick().await;
        if pulse.is_alive() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// Nothing happens if nobody asked to be told.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd can't be told");
    }
}
