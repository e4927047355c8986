//! Addresses of names, without the C library, whose way to them would load the host's modules into a static binary.

use hickory_resolver::{ResolverBuilder, TokioResolver};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::sync::OnceCell;

/// Finds addresses by hosts(5) and resolv.conf(5), which are read when they are first needed.
#[derive(Debug, Default)]
pub struct Resolver(OnceCell<TokioResolver>);

impl Resolver {
    /// The addresses of a name, at least one, or the one that it is.
    ///
    /// # Errors
    /// No such name, or nobody who knows.
    pub async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        if name == "localhost" {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let resolver = self.0.get_or_try_init(|| async {
            TokioResolver::builder_tokio().and_then(ResolverBuilder::build)
        });
        let resolver = resolver.await.map_err(io::Error::other)?;
        let found = resolver.lookup_ip(name).await;
        let found: Vec<IpAddr> = match found {
            Ok(found) => found.iter().collect(),
            Err(error) if error.is_no_records_found() => Vec::new(),
            Err(error) => return Err(io::Error::other(error)),
        };
        match found.is_empty() {
            true => Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no such host: {name}"),
            )),
            false => Ok(found),
        }
    }
}
