//! Which writes aren't settled, of numbers that are given in ascending order and mostly settled so.

use std::collections::VecDeque;

/// A window over the numbers from the first that isn't settled: a byte a number. What is settled
/// out of order stays in it until all before it is settled too.
#[derive(Debug, Default)]
pub struct Unsettled {
    /// The number that the window begins with.
    first: u64,
    is_settled: VecDeque<bool>,
    count: usize,
}

impl Unsettled {
    /// The next number, from 1. It isn't settled.
    pub fn push(&mut self) -> u64 {
        if self.is_settled.is_empty() {
            self.first = self.first.max(1);
        }
        let number = self.first + length(&self.is_settled);
        self.is_settled.push_back(false);
        self.count += 1;
        number
    }

    /// A number is settled.
    pub fn settle(&mut self, number: u64) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let Some(is_settled) = place.and_then(|place| self.is_settled.get_mut(place)) else {
            return;
        };
        if !std::mem::replace(is_settled, true) {
            self.count -= 1;
        }
        while self.is_settled.front() == Some(&true) {
            self.is_settled.pop_front();
            self.first += 1;
        }
    }

    /// Whether this number isn't settled.
    pub fn contains(&self, number: u64) -> bool {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        place.and_then(|place| self.is_settled.get(place)) == Some(&false)
    }

    /// Whether any number up to this one isn't settled.
    pub fn has_any_up_to(&self, number: u64) -> bool {
        // The window begins with one that isn't, if there is any.
        !self.is_settled.is_empty() && self.first <= number
    }

    /// The last number that was given; 0 before the first.
    pub fn last(&self) -> u64 {
        (self.first + length(&self.is_settled)).saturating_sub(1)
    }

    /// How many aren't settled.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether all are settled.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

fn length(window: &VecDeque<bool>) -> u64 {
    u64::try_from(window.len()).expect("no memory is larger")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    proptest::proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((0_u8..3, 0_u64..12), 0..200)) {
            let (mut unsettled, mut model) = (Unsettled::default(), BTreeSet::new());
            let mut given = 0;
            for (step, number) in steps {
                if step == 0 {
                    given += 1;
                    proptest::prop_assert_eq!(unsettled.push(), given);
                    model.insert(given);
                } else {
                    // Those near the end, in any order and more than once.
                    let number = given.saturating_sub(number);
                    unsettled.settle(number);
                    model.remove(&number);
                    proptest::prop_assert_eq!(unsettled.contains(number), false);
                }
                proptest::prop_assert_eq!(unsettled.len(), model.len());
                proptest::prop_assert_eq!(unsettled.last(), given);
                for number in 0..=given {
                    proptest::prop_assert_eq!(unsettled.contains(number), model.contains(&number));
                    let has_any = model.first().is_some_and(|first| *first <= number);
                    proptest::prop_assert_eq!(unsettled.has_any_up_to(number), has_any);
                }
            }
        }
    }
}
