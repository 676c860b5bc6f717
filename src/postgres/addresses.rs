//! A host name that stands for several addresses, some of which may swallow whatever they are sent:
//! they are tried beside each other, as RFC 8305 has it.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::failure::{Failure, Remedy};

/// Before the next address is tried beside the last, as the RFC advises.
const HEAD_START: Duration = Duration::from_millis(250);

/// The addresses of a name, in the system's order, each once; the name itself, if it has none. Never
/// none.
pub async fn of(name: &str, port: u16) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    if name.parse::<IpAddr>().is_err()
        && let Ok(found) = tokio::net::lookup_host((name, port)).await
    {
        for address in found.map(|found| found.ip().to_string()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    if addresses.is_empty() {
        // Whoever connects says why there is none.
        addresses.push(name.to_owned());
    }
    addresses
}

/// What `connect` makes of the first address that lets it. The next one is tried once one has failed,
/// or says nothing for a while. Of failures the last is told, or one that is final.
pub async fn first_to_connect<T>(
    addresses: Vec<String>,
    connect: impl AsyncFn(String) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    attempts.extend(waiting.next().map(|address| connect(address)));
    loop {
        let are_more = waiting.len() > 0;
        tokio::select! {
            Some(attempt) = attempts.next() => match attempt {
                Ok(connected) => return Ok(connected),
                // As for hosts: where one refuses us, the others would too.
                Err(failure) if failure.remedy == Remedy::None => return Err(failure),
                Err(failure) if attempts.is_empty() && !are_more => return Err(failure),
                Err(_) => attempts.extend(waiting.next().map(|address| connect(address))),
            },
            () = tokio::time::sleep(HEAD_START), if are_more => {
                attempts.extend(waiting.next().map(|address| connect(address)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    /// "silent" says nothing, "dead" refuses, "closed" refuses for good, and others connect.
    async fn connect(address: String) -> Result<String, Failure> {
        match address.as_str() {
            "silent" => pending().await,
            "dead" => Err(Failure::lost(address)),
            "closed" => Err(Failure::refused(address, None)),
            _ => Ok(address),
        }
    }

    fn first(addresses: &[&str]) -> Result<String, Failure> {
        let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(first_to_connect(addresses, connect))
    }

    #[test]
    fn an_address_that_is_dead_or_silent_is_passed_over() {
        for addresses in
            [&["good"][..], &["dead", "good"], &["silent", "good"], &["silent", "dead", "good"]]
        {
            assert_eq!(first(addresses), Ok("good".to_owned()), "{addresses:?}");
        }
    }

    #[test]
    fn a_refusal_that_is_final_is_one_for_all() {
        assert_eq!(first(&["dead", "closed", "good"]).unwrap_err().remedy, Remedy::None);
        assert_eq!(first(&["dead", "dead"]).unwrap_err().remedy, Remedy::Retry);
    }

    #[test]
    fn an_address_is_its_own_and_a_name_that_has_none_is_kept() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(of("::1", 1)), ["::1"]);
        assert_eq!(runtime.block_on(of("no-such-host.invalid", 1)), ["no-such-host.invalid"]);
        assert!(!runtime.block_on(of("localhost", 1)).is_empty());
    }
}
