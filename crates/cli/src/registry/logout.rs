//! `hull logout`.

use super::credentials::{HUB, Store, host};
use crate::app::{Arity, Command};
use crate::error::{Result, chain};
use crate::flags::Matches;
use crate::output;
use crate::session::Session;

pub(crate) const LOGOUT: Command = Command {
    usage: "[SERVER]",
    about: "Forget the credentials for a registry, by default Docker Hub",
    aliases: &[],
    flags: &[],
    arity: Arity::Between(0, 1),
    interspersed: true,
    run: |session, matches| Box::pin(run(session, matches)),
};

async fn run(session: &Session, matches: &Matches) -> Result<()> {
    let address = super::login::address(matches);
    let (shown, keys) = match address {
        HUB => (HUB, vec![HUB.to_owned()]),
        address => {
            // Older clients have kept them under whole addresses.
            let host = host(address);
            let schemes = ["", "http://", "https://"].map(|scheme| format!("{scheme}{host}"));
            let own = (address != host).then(|| address.to_owned());
            (host, schemes.into_iter().chain(own).collect())
        }
    };
    output::line(&format!("Removing login credentials for {shown}"))?;
    let mut store = Store::open(&session.config_directory())?;
    if let Err(error) = store.remove(&keys) {
        output::complain(&format!(
            "WARNING: could not erase credentials:\n{shown}: {}",
            chain(&error)
        ));
    }
    Ok(())
}
