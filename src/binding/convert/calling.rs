//! Calls into JavaScript, whose exceptions become errors as they are.
//!
//! napi's own call turns an exception into a text and follows its `cause`: that is code of the
//! user's, which may throw in turn, and never ends where a cause leads back or the stack is full.

use napi::bindgen_prelude::Unknown;
use napi::{Env, sys};

/// Calls a function with values that live for as long as the call. What it throws is the error, to
/// be thrown on; nothing stays pending.
#[expect(unsafe_code, reason = "napi's safe call runs code of the user's where one fails")]
pub fn call<'env>(
    env: &'env Env,
    function: sys::napi_value,
    this: Option<sys::napi_value>,
    arguments: &[sys::napi_value],
) -> napi::Result<Unknown<'env>> {
    let this = match this {
        Some(this) => this,
        None => undefined(env)?,
    };
    let mut result = std::ptr::null_mut();
    // SAFETY: all are live values of this environment, and the arguments are as many as we say.
    let status = unsafe {
        sys::napi_call_function(
            env.raw(),
            this,
            function,
            arguments.len(),
            arguments.as_ptr(),
            &mut result,
        )
    };
    if status == sys::Status::napi_pending_exception
        && let Some(exception) = take_exception(env)
    {
        return Err(napi::Error::from_unknown_without_coercion(exception));
    }
    napi::check_status!(status)?;
    // SAFETY: on success the result is a live value of this environment.
    Ok(unsafe { Unknown::from_raw_unchecked(env.raw(), result) })
}

/// The exception that a failed call into JavaScript left pending, if it did.
#[expect(unsafe_code, reason = "napi has no safe way to take an exception")]
pub fn take_exception(env: &Env) -> Option<Unknown<'_>> {
    let mut is_pending = false;
    // SAFETY: the environment is this thread's; the flag is a valid place to write to.
    let status = unsafe { sys::napi_is_exception_pending(env.raw(), &mut is_pending) };
    if status != sys::Status::napi_ok || !is_pending {
        return None;
    }
    let mut exception = std::ptr::null_mut();
    // SAFETY: as above.
    let status = unsafe { sys::napi_get_and_clear_last_exception(env.raw(), &mut exception) };
    // SAFETY: on success the exception is a live value of this environment.
    (status == sys::Status::napi_ok)
        .then(|| unsafe { Unknown::from_raw_unchecked(env.raw(), exception) })
}

#[expect(unsafe_code, reason = "napi's own constructor needs a type that is converted")]
fn undefined(env: &Env) -> napi::Result<sys::napi_value> {
    let mut undefined = std::ptr::null_mut();
    // SAFETY: the environment is this thread's, and the value is a valid place to write to.
    napi::check_status!(unsafe { sys::napi_get_undefined(env.raw(), &mut undefined) })?;
    Ok(undefined)
}
