//! What shows that sessions could be stored.

use std::hash::{BuildHasher as _, RandomState};
use std::time::SystemTime;

use crate::model::{SessionEvent, SessionRecord};

/// Rows such as the SDK stores, of ids that nobody else has.
#[derive(Debug, Clone)]
pub struct Probe {
    /// A session.
    pub session: SessionRecord,
    /// Its first event.
    pub event: SessionEvent,
}

impl Probe {
    /// Rows of now.
    pub fn new() -> Self {
        let id = random_uuid();
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let created_at = i64::try_from(since_epoch.unwrap_or_default().as_millis()).unwrap_or(0);
        let session = SessionRecord {
            id: id.clone(),
            agent: "probe".to_owned(),
            agent_session_id: id.clone(),
            last_connection_id: id.clone(),
            created_at,
            ..SessionRecord::default()
        };
        let event = SessionEvent {
            id: id.clone(),
            session_id: id.clone(),
            event_index: 1,
            created_at,
            connection_id: id,
            sender: "client".to_owned(),
            payload: r#"{"jsonrpc":"2.0","method":"probe"}"#.to_owned(),
            ..SessionEvent::default()
        };
        Self { session, event }
    }
}

/// As the SDK's ids, version 4: a table may insist on it.
fn random_uuid() -> String {
    let [high, low] = [0_u8, 1].map(|half| RandomState::new().hash_one(half));
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | ((low >> 48) & 0x3fff),
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_probe_has_a_uuid_of_its_own() {
        let [one, other] = [Probe::new(), Probe::new()];
        assert_ne!(one.session.id, other.session.id);
        let id = one.session.id;
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(id.as_bytes()[14], b'4', "{id}");
        assert!(b"89ab".contains(&id.as_bytes()[19]), "{id}");
    }
}
