//! What to do after an attempt has failed, and how long to pause before the next. Pure.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};

use super::failure::{Failure, Remedy};

/// The first pause is short: a connection that was cut is usually back at once.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// After this many refusals that should have passed by themselves, the reason may be one of several
/// rows, as when a trigger raises them.
const MAX_SHARED_REFUSALS: u32 = 3;

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// To make another attempt, after a pause.
    Retry,
    /// To look at the schema again, which somebody changed, and make another attempt at once.
    LookAgain,
    /// To put the calls back into the queue, to be tried half as many together: one of them may be
    /// the reason, and the others be served without it.
    Split,
    /// To fail the calls whose time is up, at least the oldest; the others have time left.
    Expire,
    /// To fail all of them.
    Fail,
}

/// What has happened since the first attempt. Times are taken outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Whether the attempts are made for several calls, one of which may be the reason.
    pub is_shared: bool,
    /// How long trouble is ridden out.
    pub retry_timeout: Duration,
    /// How often the server answered that it won't, though it should have passed by itself.
    pub refusals: u32,
    /// Whether the server has left an attempt without an answer for as long as it may take.
    pub was_unanswered: bool,
    /// Whether the schema was looked at again.
    pub has_looked_again: bool,
    /// How long ago the first attempt began.
    pub elapsed: Duration,
    /// Whether the oldest call may wait no longer.
    pub is_overdue: bool,
}

impl History {
    /// Before the first attempt for so many calls.
    pub fn new(calls: usize, retry_timeout: Duration) -> Self {
        Self {
            is_shared: calls > 1,
            retry_timeout,
            refusals: 0,
            was_unanswered: false,
            has_looked_again: false,
            elapsed: Duration::ZERO,
            is_overdue: false,
        }
    }

    /// An attempt has failed.
    pub fn record(&mut self, failure: &Failure, elapsed: Duration, is_overdue: bool) {
        self.refusals += u32::from(failure.is_passing() && !failure.is_connection_lost);
        self.was_unanswered |= failure.is_unanswered;
        self.elapsed = elapsed;
        self.is_overdue = is_overdue;
    }
}

/// What to do about a failure, the last of this history.
pub fn decide(failure: &Failure, history: &History) -> Decision {
    if failure.is_of_the_schema() && !history.has_looked_again {
        return Decision::LookAgain;
    }
    match failure.remedy {
        Remedy::Retry | Remedy::RetryElsewhere => decide_on_passing(history),
        Remedy::Split if history.is_shared => Decision::Split,
        Remedy::Split | Remedy::None => Decision::Fail,
    }
}

fn decide_on_passing(history: &History) -> Decision {
    let is_for_long = history.elapsed >= history.retry_timeout;
    let is_unanswered_for_long = history.was_unanswered && is_for_long;
    let may_be_for_one = is_unanswered_for_long && !history.is_overdue;
    if history.is_shared && (history.refusals >= MAX_SHARED_REFUSALS || may_be_for_one) {
        return Decision::Split;
    }
    // What the server has answered, or worked at in vain, didn't only wait for its turn.
    let is_refused_for_long = history.refusals > 0 && is_for_long;
    if is_refused_for_long || is_unanswered_for_long || history.is_overdue {
        Decision::Expire
    } else {
        Decision::Retry
    }
}

/// The pauses between attempts: each about twice as long as the last, and none alike, so that
/// those who lost the same server don't come back all at once.
pub fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(FIRST_PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{DatabaseCode, StoreError};

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn answer(remedy: Remedy) -> Failure {
        Failure { remedy, ..Failure::of_call(StoreError::Internal { reason: "a test" }) }
    }

    fn missing_table() -> Failure {
        let database_code = DatabaseCode::Sqlstate("42P01".to_owned());
        Failure::of_call(StoreError::Database { message: String::new(), database_code })
    }

    fn lost() -> Failure {
        Failure::lost("a test".to_owned())
    }

    fn of_one() -> History {
        History::new(1, TIMEOUT)
    }

    fn of_several() -> History {
        History::new(2, TIMEOUT)
    }

    #[test]
    fn each_failure_is_decided_by_what_helps_and_what_was_tried() {
        let refused = |refusals, history| History { refusals, ..history };
        let unanswered = |history| History { was_unanswered: true, ..history };
        let for_long = |history| History { elapsed: TIMEOUT, ..history };
        let overdue = |history| History { is_overdue: true, ..history };
        let looked_again = |history| History { has_looked_again: true, ..history };
        let (retry, elsewhere) = (answer(Remedy::Retry), answer(Remedy::RetryElsewhere));
        for (name, failure, history, expected) in [
            ("a refusal that passes", &retry, refused(1, of_one()), Decision::Retry),
            ("a standby", &elsewhere, refused(1, of_several()), Decision::Retry),
            ("a lost connection", &lost(), of_several(), Decision::Retry),
            ("one refused often", &retry, refused(99, of_one()), Decision::Retry),
            ("several refused twice", &retry, refused(2, of_several()), Decision::Retry),
            ("several refused thrice", &retry, refused(3, of_several()), Decision::Split),
            ("… and overdue", &retry, overdue(refused(3, of_several())), Decision::Split),
            ("refused for long", &retry, for_long(refused(1, of_one())), Decision::Expire),
            ("waited for a turn for long", &lost(), for_long(of_several()), Decision::Retry),
            ("unanswered", &lost(), unanswered(of_one()), Decision::Retry),
            ("unanswered for long", &lost(), for_long(unanswered(of_one())), Decision::Expire),
            ("several for long", &lost(), for_long(unanswered(of_several())), Decision::Split),
            ("no time left", &lost(), overdue(of_several()), Decision::Expire),
            ("a row of several", &answer(Remedy::Split), of_several(), Decision::Split),
            ("… and overdue", &answer(Remedy::Split), overdue(of_several()), Decision::Split),
            ("a row alone", &answer(Remedy::Split), of_one(), Decision::Fail),
            ("no remedy", &answer(Remedy::None), of_several(), Decision::Fail),
            ("a missing table", &missing_table(), of_several(), Decision::LookAgain),
            ("… and overdue", &missing_table(), overdue(of_one()), Decision::LookAgain),
            ("missing still", &missing_table(), looked_again(of_several()), Decision::Fail),
        ] {
            assert_eq!(decide(failure, &history), expected, "{name}");
        }
    }

    #[test]
    fn only_answers_that_should_have_passed_count_as_refusals() {
        let mut history = of_several();
        for failure in [lost(), answer(Remedy::Split), missing_table()] {
            history.record(&failure, TIMEOUT, true);
        }
        let recorded = History { elapsed: TIMEOUT, is_overdue: true, ..of_several() };
        assert_eq!(history, recorded);
        history.record(&answer(Remedy::Retry), TIMEOUT, true);
        assert_eq!(history, History { refusals: 1, ..recorded });
    }

    #[test]
    fn pauses_grow_to_the_longest_and_never_end() {
        let pauses: Vec<Duration> = pauses().take(50).collect();
        assert!(pauses[0] >= FIRST_PAUSE && pauses[0] <= 2 * FIRST_PAUSE, "{:?}", pauses[0]);
        assert!(pauses[49] >= LONGEST_PAUSE);
        assert_eq!(pauses.len(), 50);
    }
}
