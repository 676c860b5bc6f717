//! Which rows of a list are wanted, and from which end. Pure: each backend prints it in its own
//! SQL.

use crate::model::{EventRow, Number};

/// From which end a list is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// From the first row on.
    #[default]
    Oldest,
    /// From the last row on.
    Newest,
}

/// Which sessions are wanted; `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionsFilter {
    /// Those of this agent.
    pub agent: Option<String>,
    /// Those that run in this sandbox.
    pub sandbox_id: Option<String>,
    /// Those that were destroyed, or those that weren't.
    pub is_destroyed: Option<bool>,
    /// Those created later; milliseconds since 1970.
    pub created_after: Option<i64>,
    /// Those created earlier; milliseconds since 1970.
    pub created_before: Option<i64>,
}

/// Which events are wanted; `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventsFilter {
    /// Those that it sent, `client` or `agent`.
    pub sender: Option<String>,
    /// Those whose envelope has this `method`.
    pub method: Option<String>,
    /// Those with a higher index.
    pub after_index: Option<i64>,
    /// Those with a lower index.
    pub before_index: Option<i64>,
    /// Those created later; milliseconds since 1970.
    pub created_after: Option<i64>,
    /// Those created earlier; milliseconds since 1970.
    pub created_before: Option<i64>,
}

/// Where a row has the value that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// In this column.
    Column(&'static str),
    /// In the envelope, as its `method`.
    Method,
}

/// What the value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test<'filter> {
    /// This text.
    Is(&'filter str),
    /// A larger number.
    Above(i64),
    /// A smaller number.
    Below(i64),
    /// There, or not there.
    Exists(bool),
}

/// What a row must satisfy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition<'filter> {
    /// Where the value is.
    pub field: Field,
    /// What it must be.
    pub test: Test<'filter>,
}

impl SessionsFilter {
    /// What each row must satisfy.
    pub fn conditions(&self) -> impl Iterator<Item = Condition<'_>> {
        let Self { agent, sandbox_id, is_destroyed, created_after, created_before } = self;
        [
            agent.as_deref().map(|agent| on("agent", Test::Is(agent))),
            sandbox_id.as_deref().map(|sandbox| on("sandbox_id", Test::Is(sandbox))),
            is_destroyed.map(|is| on("destroyed_at", Test::Exists(is))),
            created_after.map(|time| on("created_at", Test::Above(time))),
            created_before.map(|time| on("created_at", Test::Below(time))),
        ]
        .into_iter()
        .flatten()
    }

    /// A text that differs between lists that differ; `None` for all sessions, oldest first.
    pub fn question(&self, order: Order) -> Option<String> {
        let Self { agent, sandbox_id, is_destroyed, created_after, created_before } = self;
        let members = (agent, sandbox_id, is_destroyed, created_after, created_before);
        (*self != Self::default() || order != Order::default())
            .then(|| text_of(&(members, order == Order::Newest)))
    }
}

impl EventsFilter {
    /// What each row must satisfy.
    pub fn conditions(&self) -> impl Iterator<Item = Condition<'_>> {
        let Self { sender, method, after_index, before_index, created_after, created_before } =
            self;
        [
            after_index.map(|index| on("event_index", Test::Above(index))),
            before_index.map(|index| on("event_index", Test::Below(index))),
            sender.as_deref().map(|sender| on("sender", Test::Is(sender))),
            created_after.map(|time| on("created_at", Test::Above(time))),
            created_before.map(|time| on("created_at", Test::Below(time))),
            method.as_deref().map(|it| Condition { field: Field::Method, test: Test::Is(it) }),
        ]
        .into_iter()
        .flatten()
    }

    /// Whether a row satisfies it, whose envelope has this method.
    pub fn matches(&self, event: &EventRow<'_>, method: Option<&str>) -> bool {
        self.conditions().all(|Condition { field, test }| match (field, test) {
            (Field::Method, Test::Is(wanted)) => method == Some(wanted),
            (Field::Column("sender"), Test::Is(wanted)) => event.sender == wanted,
            (Field::Column("event_index"), test) => is_in_range(event.event_index, test),
            (_, test) => is_in_range(event.created_at, test),
        })
    }

    /// A text that differs between lists that differ; `None` for all events, oldest first.
    pub fn question(&self, order: Order) -> Option<String> {
        let Self { sender, method, after_index, before_index, created_after, created_before } =
            self;
        let members = (sender, method, after_index, before_index, created_after, created_before);
        (*self != Self::default() || order != Order::default())
            .then(|| text_of(&(members, order == Order::Newest)))
    }
}

#[expect(clippy::cast_precision_loss, reason = "JavaScript, which gave the bounds, rounds alike")]
fn is_in_range(number: Number, test: Test<'_>) -> bool {
    match test {
        Test::Above(bound) => number.as_f64() > bound as f64,
        Test::Below(bound) => number.as_f64() < bound as f64,
        Test::Is(_) | Test::Exists(_) => false,
    }
}

fn on<'filter>(column: &'static str, test: Test<'filter>) -> Condition<'filter> {
    Condition { field: Field::Column(column), test }
}

fn text_of(question: &impl serde::Serialize) -> String {
    serde_json::to_string(question).expect("texts, numbers and truth values")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_of_a_filter_is_a_condition() {
        let filter = SessionsFilter {
            agent: Some("a".to_owned()),
            sandbox_id: Some("s".to_owned()),
            is_destroyed: Some(false),
            created_after: Some(1),
            created_before: Some(2),
        };
        let conditions: Vec<_> = filter.conditions().collect();
        assert_eq!(
            conditions,
            [
                on("agent", Test::Is("a")),
                on("sandbox_id", Test::Is("s")),
                on("destroyed_at", Test::Exists(false)),
                on("created_at", Test::Above(1)),
                on("created_at", Test::Below(2)),
            ]
        );
        assert_eq!(EventsFilter::default().conditions().count(), 0);
    }

    #[test]
    fn the_whole_list_is_no_question_and_others_differ() {
        assert_eq!(EventsFilter::default().question(Order::Oldest), None);
        let of_sender = |sender: &str| EventsFilter {
            sender: Some(sender.to_owned()),
            ..EventsFilter::default()
        };
        let of_method = |method: &str| EventsFilter {
            method: Some(method.to_owned()),
            ..EventsFilter::default()
        };
        let questions = [
            EventsFilter::default().question(Order::Newest),
            of_sender("a").question(Order::Oldest),
            of_sender("a").question(Order::Newest),
            of_method("a").question(Order::Oldest),
            of_sender("b").question(Order::Oldest),
        ];
        for (place, question) in questions.iter().enumerate() {
            assert!(question.is_some());
            assert!(!questions[..place].contains(question), "{question:?}");
        }
    }
}
