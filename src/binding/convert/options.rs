//! Objects of options, checked up front. Messages name the option as JavaScript does.

use std::ffi::CString;
use std::ops::RangeInclusive;

use napi::bindgen_prelude::{Object, Unknown};
use napi::{Env, ValueType};

use crate::columns::OnDuplicate;

use super::error::CallError;
use super::realm::Kept;
use super::values;

/// An object of options, for reading one after the other.
pub struct Options<'env> {
    object: Object<'env>,
    /// What errors call it.
    name: String,
}

impl<'env> Options<'env> {
    /// An object without any.
    pub fn empty(env: &'env Env, name: &str) -> Result<Self, CallError> {
        Ok(Self { object: Object::new(env)?, name: name.to_owned() })
    }

    pub fn of(options: Unknown<'env>, name: &str) -> Result<Self, CallError> {
        Ok(Self { object: values::object(options, name)?, name: name.to_owned() })
    }

    /// Refuses a name that isn't `known`: it is misspelt, and would be ignored. `silent` ones are
    /// known too, but nothing to offer.
    pub fn only(self, known: &[&str], silent: &[&str]) -> Result<Self, CallError> {
        let unknown = self.unknown_names(&[known, silent].concat())?;
        match unknown.first() {
            Some(name) => {
                let (name, known) = (self.full_name(name), known.join(", "));
                let message = format!("{name} is not an option; the options are {known}");
                Err(CallError::InvalidArgument(message))
            }
            None => Ok(self),
        }
    }

    /// The names in it that aren't `known`.
    pub fn unknown_names(&self, known: &[&str]) -> Result<Vec<String>, CallError> {
        let mut unknown = Vec::new();
        for name in values::own_names(&self.object)? {
            let (_, name) = name?;
            if !known.contains(&name.as_str()) {
                unknown.push(name);
            }
        }
        Ok(unknown)
    }

    /// What errors call the option.
    pub fn full_name(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    /// `None` where it is missing or undefined.
    pub fn get(&self, name: &str) -> Result<Option<Unknown<'env>>, CallError> {
        let key = CString::new(name).expect("names of options have no NUL");
        let value = values::property(&self.object, &key)?;
        Ok((value.get_type()? != ValueType::Undefined).then_some(value))
    }

    /// `None` where it is missing, undefined or null.
    pub fn present(&self, name: &str) -> Result<Option<Unknown<'env>>, CallError> {
        let value = self.get(name)?;
        Ok(value.filter(|value| !values::is_nullish(value).unwrap_or(false)))
    }

    /// A whole number of either sign.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, CallError> {
        let value = self.present(name)?;
        value.map(|value| values::integer(value, || self.full_name(name))).transpose()
    }

    /// As [`Self::integer`], where there must be one.
    pub fn required_integer(&self, name: &str) -> Result<i64, CallError> {
        self.integer(name)?
            .ok_or_else(|| CallError::expected(&self.full_name(name), "a whole number"))
    }

    /// An array of texts.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, CallError> {
        let Some(value) = self.present(name)? else { return Ok(Vec::new()) };
        let texts = values::elements(&value)?;
        let full_name = self.full_name(name);
        texts.into_iter().map(|text| values::identifier(text, &full_name)).collect()
    }

    /// A whole number from 0 to `max`.
    pub fn whole_number(&self, name: &str, max: u64) -> Result<Option<u64>, CallError> {
        self.whole_number_within(name, 0..=max)
    }

    /// A whole number in this range.
    pub fn whole_number_within(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, CallError> {
        let Some(value) = self.present(name)? else { return Ok(None) };
        let number = match value.get_type()? {
            ValueType::Number => values::safe_integer(values::read_number(&value)?),
            _ => None,
        };
        let number = number.and_then(|number| u64::try_from(number).ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let (min, max) = range.into_inner();
                let expectation = if max == u64::MAX {
                    format!("a whole number from {min}")
                } else {
                    format!("a whole number from {min} to {max}")
                };
                Err(CallError::expected(&self.full_name(name), &expectation))
            }
        }
    }

    /// A whole number from 0 to `max`, also as text, as out of the environment.
    pub fn numeric(&self, name: &str, max: u64) -> Result<Option<u64>, CallError> {
        let Some(value) = self.present(name)? else { return Ok(None) };
        if value.get_type()? != ValueType::String {
            return self.whole_number(name, max);
        }
        let text = values::read_text(&value)?;
        let number = text.trim().parse().ok().filter(|number| *number <= max);
        number.map(Some).ok_or_else(|| {
            CallError::expected(&self.full_name(name), &format!("a whole number from 0 to {max}"))
        })
    }

    /// A whole number from 1, or `Infinity`.
    pub fn count(&self, name: &str) -> Result<Option<usize>, CallError> {
        let Some(value) = self.present(name)? else { return Ok(None) };
        let number = match value.get_type()? {
            ValueType::Number => values::read_number(&value)?,
            _ => f64::NAN,
        };
        if number == f64::INFINITY {
            return Ok(Some(usize::MAX));
        }
        let count = values::safe_integer(number).and_then(|number| usize::try_from(number).ok());
        match count.filter(|count| *count > 0) {
            Some(count) => Ok(Some(count)),
            None => Err(CallError::expected(
                &self.full_name(name),
                "a whole number from 1, or Infinity",
            )),
        }
    }

    /// A function.
    pub fn function(&self, name: &str) -> Result<Option<Kept>, CallError> {
        let Some(value) = self.present(name)? else { return Ok(None) };
        match value.get_type()? {
            ValueType::Function => Ok(Some(values::function(&value)?)),
            _ => Err(CallError::expected(&self.full_name(name), "a function")),
        }
    }

    /// What the word stands for that is given.
    pub fn choice<T: Copy>(
        &self,
        name: &str,
        choices: &[(&str, T)],
    ) -> Result<Option<T>, CallError> {
        let Some(value) = self.get(name)? else { return Ok(None) };
        let given = match value.get_type()? {
            ValueType::String => values::read_text(&value).unwrap_or_default(),
            _ => String::new(),
        };
        let chosen = choices.iter().find(|(word, _)| *word == given);
        chosen.map(|(_, meaning)| Some(*meaning)).ok_or_else(|| {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
            CallError::expected(&self.full_name(name), &words.join(" or "))
        })
    }

    /// What becomes of an event whose id is stored already.
    pub fn on_duplicate_event(&self) -> Result<OnDuplicate, CallError> {
        let choices = [("replace", OnDuplicate::Replace), ("keep", OnDuplicate::Keep)];
        Ok(self.choice("onDuplicateEvent", &choices)?.unwrap_or_default())
    }

    /// `true` or `false`.
    pub fn boolean(&self, name: &str) -> Result<Option<bool>, CallError> {
        let Some(value) = self.present(name)? else { return Ok(None) };
        match value.get_type()? {
            ValueType::Boolean => Ok(Some(values::read_boolean(&value)?)),
            _ => Err(CallError::expected(&self.full_name(name), "true or false")),
        }
    }

    /// A string that UTF-8 can hold.
    pub fn text(&self, name: &str) -> Result<Option<String>, CallError> {
        let Some(value) = self.present(name)? else { return Ok(None) };
        values::identifier(value, &self.full_name(name)).map(Some)
    }
}
