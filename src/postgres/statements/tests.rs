//! The SQL that is sent, without a server.

use super::*;
use crate::columns::{ColumnSpec, EXTRA, Kind, SESSIONS};
use crate::layout::{Column, Table};
use crate::model::{Number, SessionEvent, SessionRecord};
use crate::postgres::message::Prefix;

fn simple() -> Protocol {
    Protocol::Simple(Prefix { timeouts: "T; ".to_owned(), of_several: "S; ".to_owned() })
}

fn table(specs: &[ColumnSpec], json: &str) -> Table {
    let column = |spec: &ColumnSpec| {
        let declared_type = match spec.kind {
            Kind::Integer => "bigint",
            Kind::Json => json,
            Kind::Text => "text",
        };
        Column {
            name: spec.name.to_owned(),
            declared_type: declared_type.to_owned(),
            is_required: false,
            is_nullable: true,
            is_key: spec.name == ID,
            is_generated: false,
            default: None,
        }
    };
    Table { columns: specs.iter().map(column).collect() }
}

/// Tables as this version makes them.
fn layout() -> Layout {
    Layout {
        sessions: Some(table(&SESSIONS, "json")),
        events: Some(table(&EVENTS, "json")),
        has_indexes: true,
    }
}

fn statements_for(layout: &Layout, protocol: Protocol) -> Statements {
    let schema = Schema::new("a b".to_owned(), true);
    let constraints = vec!["one_place".to_owned()];
    let on_duplicate = OnDuplicate::Replace;
    Statements::new(&schema, layout, constraints, on_duplicate, protocol, Charset::Unicode)
}

fn statements(protocol: Protocol) -> Statements {
    statements_for(&layout(), protocol)
}

fn event(id: &str, payload: &str) -> Write {
    Write::Event(SessionEvent {
        id: id.to_owned(),
        event_index: 7,
        session_id: "s".to_owned(),
        created_at: -1,
        connection_id: "c".to_owned(),
        sender: "agent".to_owned(),
        payload: payload.to_owned(),
        extra: None,
    })
}

fn session(id: &str) -> Write {
    Write::Session(SessionRecord { id: id.to_owned(), created_at: 5, ..SessionRecord::default() })
}

fn sql(message: Message) -> String {
    message.into_parts().unwrap().0
}

fn parameter_count(message: Message) -> Option<usize> {
    message.into_parts().unwrap().1.map(|values| sqlx::Arguments::len(&values))
}

fn upserts(statements: &Statements, rows: &[Write]) -> Vec<String> {
    statements.messages(&statements.steps(rows.iter())).into_iter().map(sql).collect()
}

fn events_from(statements: &Statements, order: Order, start: &RowStart, rows: usize) -> Message {
    let select = statements.events_of("s", std::iter::empty(), order);
    select.message(&statements.dialect, start, rows)
}

fn first(offset: usize) -> RowStart {
    RowStart { offset, after: None }
}

fn after(number: Number, id: &str) -> RowStart {
    RowStart { offset: 30, after: Some((number, id.to_owned())) }
}

const EVENTS_SELECT: &str = "SELECT id, event_index, session_id, created_at, connection_id, sender, payload_json, extra_json FROM \"a b\".events AS stored";
const EVENTS_CONFLICT: &str = " ON CONFLICT (id) DO UPDATE SET event_index = excluded.event_index, session_id = excluded.session_id, created_at = excluded.created_at, connection_id = excluded.connection_id, sender = excluded.sender, payload_json = excluded.payload_json, extra_json = excluded.extra_json";

#[test]
fn one_row_goes_out_after_the_timeouts() {
    let sent = upserts(&statements(simple()), &[event("e'1", r#"{"a":"\n"}"#)]);
    let expected = format!(
        r#"T; INSERT INTO "a b".events (id, event_index, session_id, created_at, connection_id, sender, payload_json, extra_json) VALUES ('e''1',7,'s',-1,'c','agent',E'{{"a":"\\n"}}',NULL){EVENTS_CONFLICT};"#
    );
    assert_eq!(sent, [expected]);
}

#[test]
fn several_rows_are_one_message_with_events_first_and_ids_in_order() {
    let rows = [session("t"), event("b", "1"), session("s"), event("a", "2")];
    let sent = upserts(&statements(simple()), &rows);
    assert_eq!(sent.len(), 1);
    assert!(sent[0].starts_with("T; S; INSERT INTO \"a b\".events "), "{}", sent[0]);
    let places: Vec<usize> =
        ["('a',", "),('b',", "INSERT INTO \"a b\".sessions", "('s',", "),('t',"]
            .into_iter()
            .map(|part| sent[0].find(part).unwrap_or_else(|| panic!("{part} in {}", sent[0])))
            .collect();
    assert!(places.is_sorted(), "{}", sent[0]);
}

#[test]
fn many_rows_are_one_array_a_column() {
    let rows: Vec<Write> = (100..200).map(|id| event(&id.to_string(), r#"{"it":"'s"}"#)).collect();
    let sent = upserts(&statements(simple()), &rows);
    let (of_99, at) = (upserts(&statements(simple()), &rows[1..]), "payload_json, extra_json) ");
    assert!(of_99[0].contains(&format!("{at}VALUES ('101',7,")), "{}", of_99[0]);
    assert!(
        sent[0].contains(&format!("{at}SELECT id::text, event_index::bigint, ")),
        "{}",
        sent[0]
    );
    for part in [
        r#" FROM unnest(E'{"100","101","#,
        r#"'::text[],'{7,7,"#,
        r#"'::bigint[],E'{"s","s","#,
        r#"'::text[],E'{"{\\"it\\":\\"''s\\"}","#,
        r#"'::text[],E'{NULL,NULL,"#,
    ] {
        assert!(sent[0].contains(part), "{part} in {}", sent[0]);
    }
    assert!(sent[0].ends_with(&format!("{EVENTS_CONFLICT};")), "{}", sent[0]);
}

#[test]
fn the_last_row_of_an_id_wins() {
    let sent = upserts(&statements(simple()), &[event("a", "\"old\""), event("a", "\"new\"")]);
    assert!(sent[0].contains("new") && !sent[0].contains("old"), "{sent:?}");
    assert!(!sent[0].contains("S; "), "it is alone: {sent:?}");
}

#[test]
fn prepared_rows_are_one_array_a_column_whatever_their_number() {
    let statements = statements(Protocol::Prepared);
    let sent = upserts(&statements, &[event("a", "1")]);
    let expected = format!(
        r#"INSERT INTO "a b".events (id, event_index, session_id, created_at, connection_id, sender, payload_json, extra_json) SELECT id::text, event_index::bigint, session_id::text, created_at::bigint, connection_id::text, sender::text, payload_json::json, extra_json::json FROM unnest($1::text[],$2::bigint[],$3::text[],$4::bigint[],$5::text[],$6::text[],$7::text[],$8::text[]) AS rows (id, event_index, session_id, created_at, connection_id, sender, payload_json, extra_json){EVENTS_CONFLICT}"#
    );
    assert_eq!(sent, std::slice::from_ref(&expected));
    let of_both = [session("s"), event("b", "1"), event("a", "2")];
    let sent = upserts(&statements, &of_both);
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0], expected);
    assert!(sent[1].starts_with("INSERT INTO \"a b\".sessions "), "{}", sent[1]);
    let messages = statements.messages(&statements.steps(of_both.iter()));
    let counts = messages.into_iter().map(parameter_count);
    assert_eq!(counts.collect::<Vec<_>>(), [Some(8), Some(11)]);
}

#[test]
fn a_row_with_u0000_is_never_sent() {
    for protocol in [simple(), Protocol::Prepared] {
        for row in [event("a\0b", "1"), session("\0")] {
            let statements = statements(protocol.clone());
            for message in statements.messages(&statements.steps([&row].into_iter())) {
                assert!(message.into_parts().is_err(), "{protocol:?}");
            }
        }
    }
}

#[test]
fn fields_without_a_column_are_left_out() {
    let layout = Layout { events: Some(table(&EVENTS[..EVENTS.len() - 1], "jsonb")), ..layout() };
    let mut row = event("a", "1");
    let Write::Event(with_extra) = &mut row else { unreachable!() };
    with_extra.extra = Some("{\"later\":1}".to_owned());
    for protocol in [simple(), Protocol::Prepared] {
        let statements = statements_for(&layout, protocol);
        assert!(statements.drops_fields_of(&row));
        assert!(!statements.drops_fields_of(&event("a", "1")));
        let sent = upserts(&statements, std::slice::from_ref(&row));
        assert!(!sent[0].contains("later") && !sent[0].contains(EXTRA), "{sent:?}");
        let listed = sql(events_from(&statements, Order::Oldest, &first(0), 1));
        assert!(listed.contains(", NULL FROM"), "{listed}");
    }
}

#[test]
fn sessions_are_looked_up_together() {
    let lookup = |protocol| statements(protocol).sessions_by_id(["a", "it's"].into_iter());
    let sent = sql(lookup(simple()));
    assert!(sent.starts_with("T; SELECT id, agent, "), "{sent}");
    assert!(sent.ends_with(" FROM \"a b\".sessions AS stored WHERE id IN ('a','it''s')"), "{sent}");
    let sent = sql(lookup(Protocol::Prepared));
    assert!(sent.starts_with("SELECT id::text, agent::text, "), "{sent}");
    assert!(sent.ends_with(" FROM \"a b\".sessions AS stored WHERE id = ANY ($1)"), "{sent}");
    assert_eq!(parameter_count(lookup(Protocol::Prepared)), Some(1));
}

#[test]
fn a_page_starts_after_the_row_before_or_at_an_offset() {
    let statements = statements(simple());
    let order = " ORDER BY stored.event_index ASC, stored.id ASC LIMIT 3";
    let of_session = format!("T; {EVENTS_SELECT} WHERE stored.session_id = 's'");
    for (start, expected) in [
        (first(0), format!("{of_session}{order}")),
        (first(9), format!("{of_session}{order} OFFSET 9")),
        (
            after(Number::Integer(7), "it's"),
            format!("{of_session} AND (stored.event_index, stored.id) > (7, 'it''s'){order}"),
        ),
        (
            after(Number::Real(0.5), "e"),
            format!("{of_session} AND (stored.event_index, stored.id) > (0.5, 'e'){order}"),
        ),
    ] {
        assert_eq!(sql(events_from(&statements, Order::Oldest, &start, 3)), expected);
    }
}

#[test]
fn a_replay_reads_backwards() {
    let start = after(Number::Integer(7), "e");
    let message = events_from(&statements(simple()), Order::Newest, &start, 32);
    let rest = " WHERE stored.session_id = 's' AND (stored.event_index, stored.id) < (7, 'e') ORDER BY stored.event_index DESC, stored.id DESC LIMIT 32";
    assert_eq!(sql(message), format!("T; {EVENTS_SELECT}{rest}"));
}

#[test]
fn values_of_a_prepared_list_are_parameters() {
    let message = || {
        let start = after(Number::Integer(7), "e");
        events_from(&statements(Protocol::Prepared), Order::Oldest, &start, 3)
    };
    let sent = sql(message());
    let rest = " WHERE stored.session_id = $1 AND (stored.event_index, stored.id) > ($2, $3) ORDER BY stored.event_index ASC, stored.id ASC LIMIT $4";
    assert!(sent.starts_with("SELECT id::text, event_index::text, "), "{sent}");
    assert!(sent.ends_with(rest), "{sent}");
    assert_eq!(parameter_count(message()), Some(4));
}

#[test]
fn sessions_are_listed_by_the_time_of_their_creation() {
    let statements = statements(simple());
    let select = Select {
        sql: &statements.sessions.select,
        conditions: Vec::new(),
        column: CREATED_AT,
        order: Order::Oldest,
    };
    let sent = sql(select.message(&statements.dialect, &after(Number::Integer(5), "s"), 3));
    let rest = " WHERE (stored.created_at, stored.id) > (5, 's') ORDER BY stored.created_at ASC, stored.id ASC LIMIT 3";
    assert!(sent.ends_with(rest), "{sent}");
}

#[test]
fn a_conflict_of_order_is_explained_in_the_words_that_the_sdk_knows() {
    let failure = |constraint: &str| Failure {
        constraint: Some(constraint.to_owned()),
        ..Failure::of_call(StoreError::Constraint {
            message: "as it came".to_owned(),
            database_code: crate::error::DatabaseCode::Sqlstate("23505".to_owned()),
        })
    };
    let explained =
        |constraint| statements(simple()).explain(failure(constraint)).error.to_string();
    let message = "UNIQUE constraint failed: events.session_id, events.event_index";
    assert_eq!(explained("one_place"), message);
    assert_eq!(explained("another"), "as it came");
}

#[test]
fn each_condition_of_a_filter_is_one_of_the_statement() {
    let filter = EventsFilter {
        sender: Some("agent".to_owned()),
        method: Some("it's".to_owned()),
        after_index: Some(1),
        before_index: Some(9),
        created_after: Some(2),
        created_before: Some(8),
    };
    let statements = statements(simple());
    let select = statements.events_of("s", filter.conditions(), Order::Newest);
    let indexed = ["stored.session_id = 's'", "stored.event_index > 1", "stored.event_index < 9"]
        .join(" AND ");
    let others = [
        "stored.sender = 'agent'",
        "stored.created_at > 2",
        "stored.created_at < 8",
        "payload_json ->> 'method' = 'it''s' AND json_typeof(payload_json -> 'method') = 'string'",
    ]
    .join(" AND ");
    let order = "ORDER BY stored.event_index DESC, stored.id DESC LIMIT 5";
    let expected =
        format!("T; {EVENTS_SELECT} WHERE {indexed} AND CASE WHEN {others} THEN true END {order}");
    assert_eq!(sql(select.message(&statements.dialect, &first(0), 5)), expected);
}

#[test]
fn a_deletion_locks_events_in_the_order_of_their_ids_before_the_session() {
    for protocol in [simple(), Protocol::Prepared] {
        let messages = statements(protocol).messages(&[Step::DeleteSession("s")]);
        let sent: Vec<String> = messages.into_iter().map(sql).collect();
        assert_eq!(sent.len(), 1);
        let parts = [
            "ORDER BY id FOR UPDATE",
            "DELETE FROM \"a b\".events",
            "DELETE FROM \"a b\".sessions",
        ];
        let places: Vec<usize> =
            parts.into_iter().map(|part| sent[0].find(part).expect(part)).collect();
        assert!(places.is_sorted(), "{}", sent[0]);
    }
}
