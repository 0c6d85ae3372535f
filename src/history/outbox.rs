//! Events in the order of their facts, each written in the transaction of its fact.

use super::{History, HistoryError};
use crate::object::Timestamp;
use rusqlite::{Connection, Transaction, params};
use serde_json::Value;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the order.
    pub seq: i64,
    /// Its type, as `checkpoint.created`.
    pub event_type: String,
    /// What happened, JSON.
    pub payload: String,
    /// Equal for the same fact however often it is told.
    pub idempotency_key: String,
    /// When.
    pub time: Timestamp,
}

pub(super) fn insert_event(
    transaction: &Transaction<'_>,
    event_type: &str,
    payload: &Value,
    idempotency_key: &str,
    time: Timestamp,
) -> Result<(), HistoryError> {
    transaction
        .prepare_cached("INSERT OR IGNORE INTO outbox (type, payload, idempotency_key, time) VALUES (?, ?, ?, ?)")?
        .execute(params![event_type, payload.to_string(), idempotency_key, time.nanos_since_epoch()])?;
    Ok(())
}

/// Returns up to `limit` events after `seq`, oldest first.
pub(super) fn events_after(connection: &Connection, seq: i64, limit: usize) -> Result<Vec<Event>, HistoryError> {
    let mut statement = connection
        .prepare_cached("SELECT seq, type, payload, idempotency_key, time FROM outbox WHERE seq > ? ORDER BY seq LIMIT ?")?;
    let events = statement.query_map(params![seq, limit as i64], |row| {
        Ok(Event {
            seq: row.get(0)?,
            event_type: row.get(1)?,
            payload: row.get(2)?,
            idempotency_key: row.get(3)?,
            time: Timestamp::from_nanos(row.get(4)?),
        })
    })?;
    Ok(events.collect::<Result<_, _>>()?)
}

impl History {
    /// Returns up to `limit` events after `seq`, oldest first.
    pub fn events_since(&self, seq: i64, limit: usize) -> Result<Vec<Event>, HistoryError> {
        events_after(&self.reader(), seq, limit)
    }

    /// Remembers that `consumer` has dealt with every event up to `seq`.
    pub fn acknowledge(&self, consumer: &str, seq: i64) -> Result<(), HistoryError> {
        self.write(|transaction| {
            transaction.execute(
                "INSERT INTO outbox_consumers (name, acknowledged_seq, time) VALUES (?1, ?2, ?3)
                 ON CONFLICT (name) DO UPDATE SET acknowledged_seq = max(acknowledged_seq, ?2), time = ?3",
                params![consumer, seq, Timestamp::now().nanos_since_epoch()],
            )?;
            Ok(())
        })
    }
}
