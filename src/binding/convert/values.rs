//! JavaScript's values as ours, checked, and texts back.

use std::ffi::CStr;

use napi::bindgen_prelude::{
    FromNapiValue, Function, FunctionRef, JsObjectValue, JsValuesTupleIntoVec, Object, Uint8Array,
    Unknown, Utf16String,
};
use napi::{Env, JsValue, KeyCollectionMode, KeyConversion, KeyFilter, ValueType, sys};

use super::error::CallError;

/// 2^53 - 1: the largest integer that a JavaScript number holds exactly, and all below.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// The names of an object's own enumerable fields, as values and as texts; not symbols.
pub fn own_names<'env>(
    object: &Object<'env>,
) -> napi::Result<impl Iterator<Item = napi::Result<(Unknown<'env>, String)>>> {
    let names = object.get_all_property_names(
        KeyCollectionMode::OwnOnly,
        KeyFilter::Enumerable,
        KeyConversion::NumbersToStrings,
    )?;
    Ok((0..names.get_array_length_unchecked()?).filter_map(move |index| {
        let named = || -> napi::Result<_> {
            let name: Unknown<'env> = names.get_element(index)?;
            match name.get_type()? {
                ValueType::String => Ok(Some((name, read_text(&name)?))),
                _ => Ok(None),
            }
        };
        named().transpose()
    }))
}

/// The elements of a value known to be an array.
pub fn elements<'env>(array: &Unknown<'env>) -> napi::Result<Vec<Unknown<'env>>> {
    let array = Object::from_raw(array.value().env, array.raw());
    (0..array.get_array_length()?).map(|index| array.get_element(index)).collect()
}

/// Whether it is `undefined` or `null`.
pub fn is_nullish(value: &Unknown<'_>) -> napi::Result<bool> {
    Ok(matches!(value.get_type()?, ValueType::Undefined | ValueType::Null))
}

/// Whether it is an object, and not `null` or a function.
pub fn is_object(value: &Unknown<'_>) -> napi::Result<bool> {
    Ok(value.get_type()? == ValueType::Object)
}

/// Whether it is a string.
pub fn is_string(value: &Unknown<'_>) -> napi::Result<bool> {
    Ok(value.get_type()? == ValueType::String)
}

/// An argument that must be an object.
pub fn object<'env>(value: Unknown<'env>, name: &str) -> Result<Object<'env>, CallError> {
    match value.get_type()? {
        ValueType::Object => Ok(Object::from_raw(value.value().env, value.raw())),
        _ => Err(CallError::expected(name, "an object")),
    }
}

/// A field of an object; a getter may throw.
pub fn property<'env>(object: &Object<'env>, key: &CStr) -> Result<Unknown<'env>, CallError> {
    Ok(object.get_c_named_property_unchecked(key)?)
}

/// A string that can be told apart from every other in UTF-8.
pub fn identifier(value: Unknown<'_>, name: &str) -> Result<String, CallError> {
    read_identifier(value, || name.to_owned())
}

pub fn read_identifier(value: Unknown<'_>, name: impl Fn() -> String) -> Result<String, CallError> {
    if value.get_type()? != ValueType::String {
        return Err(CallError::expected(&name(), "a string"));
    }
    let text = read_text(&value)?;
    // What UTF-8 can't hold reads as U+FFFD, which may also be meant.
    if text.contains(['\0', char::REPLACEMENT_CHARACTER]) && !is_unambiguous(&value)? {
        let expectation = "a string without U+0000 and unpaired surrogates";
        return Err(CallError::expected(&name(), expectation));
    }
    Ok(text)
}

fn is_unambiguous(text: &Unknown<'_>) -> napi::Result<bool> {
    let units = convert_to::<Utf16String>(text)?;
    let is_well_formed = char::decode_utf16(units.iter().copied()).all(|unit| unit.is_ok());
    Ok(is_well_formed && !units.contains(&0))
}

pub fn integer(value: Unknown<'_>, name: impl Fn() -> String) -> Result<i64, CallError> {
    let wrong = || CallError::expected(&name(), "an integer between -(2^53 - 1) and 2^53 - 1");
    if value.get_type()? != ValueType::Number {
        return Err(wrong());
    }
    safe_integer(read_number(&value)?).ok_or_else(wrong)
}

/// The integer that a number is, exactly.
pub fn safe_integer(number: f64) -> Option<i64> {
    let is_safe = number.fract() == 0.0 && number.abs() <= MAX_SAFE_INTEGER;
    #[expect(clippy::cast_possible_truncation, reason = "a whole number of at most 53 bits")]
    is_safe.then_some(number as i64)
}

/// A value known to be a number.
pub fn read_number(value: &Unknown<'_>) -> napi::Result<f64> {
    convert_to(value)
}

/// A value known to be a boolean.
pub fn read_boolean(value: &Unknown<'_>) -> napi::Result<bool> {
    convert_to(value)
}

/// A value known to be a `Uint8Array`, as Node's buffers are.
pub fn read_bytes(value: &Unknown<'_>) -> napi::Result<Vec<u8>> {
    Ok(convert_to::<Uint8Array>(value)?.to_vec())
}

#[expect(unsafe_code, reason = "napi's conversion of a value to a type is unsafe")]
fn convert_to<T: FromNapiValue>(value: &Unknown<'_>) -> napi::Result<T> {
    // SAFETY: the value is live and of its own environment; its type is checked.
    unsafe { T::from_napi_value(value.value().env, value.raw()) }
}

/// A value known to be a string, in one look where it is short.
#[expect(unsafe_code, reason = "napi's own conversion asks for the length first")]
pub fn read_text(text: &Unknown<'_>) -> napi::Result<String> {
    const SHORT_BYTES: usize = 1_024;
    /// A text that doesn't fit is cut before a character, of at most four bytes, and a NUL.
    const SURELY_WHOLE_BYTES: usize = SHORT_BYTES - 5;
    let mut buffer = [0_u8; SHORT_BYTES];
    let mut length = 0;
    // SAFETY: the buffer is as long as we say; the value is live and of its own environment.
    let status = unsafe {
        sys::napi_get_value_string_utf8(
            text.value().env,
            text.raw(),
            buffer.as_mut_ptr().cast(),
            SHORT_BYTES,
            &mut length,
        )
    };
    napi::check_status!(status)?;
    if length > SURELY_WHOLE_BYTES {
        return convert_to(text);
    }
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// A JavaScript string. Plain ASCII, as most of our texts are, is copied, not decoded.
#[expect(unsafe_code, reason = "napi's safe constructor can't take a borrowed Latin-1 text")]
pub fn js_string<'env>(env: &'env Env, text: &str) -> napi::Result<Unknown<'env>> {
    let create =
        if text.is_ascii() { sys::napi_create_string_latin1 } else { sys::napi_create_string_utf8 };
    let length = isize::try_from(text.len()).expect("no allocation is longer");
    let mut string = std::ptr::null_mut();
    // SAFETY: the text is as long as we say, and ASCII where it is read as Latin-1.
    let status = unsafe { create(env.raw(), text.as_ptr().cast(), length, &mut string) };
    napi::check_status!(status)?;
    // SAFETY: on success the string is a live value of this environment.
    Ok(unsafe { Unknown::from_raw_unchecked(env.raw(), string) })
}

/// A function that is called later, of a value that is one.
#[expect(unsafe_code, reason = "napi's conversion of a value to its type is unsafe")]
pub fn function<Args: JsValuesTupleIntoVec>(
    value: &Unknown<'_>,
) -> napi::Result<FunctionRef<Args, Unknown<'static>>> {
    // SAFETY: the value is live and of its own environment; its type is checked.
    let function = unsafe {
        Function::<Args, Unknown<'static>>::from_napi_value(value.value().env, value.raw())
    };
    function?.create_ref()
}
