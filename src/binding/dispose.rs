//! `using` and `await using` close a driver, where the runtime has the symbols for them.

use napi::Env;
use napi::bindgen_prelude::{Function, JsObjectValue, Object, Unknown};
use napi_derive::napi;

use super::convert;

/// Gives both classes the method that their blocks call at the end.
#[cfg_attr(test, allow(dead_code, reason = "registered in addons, which tests are not"))]
#[napi(module_exports)]
pub fn add_dispose(exports: Object<'_>, env: Env) -> napi::Result<()> {
    alias_close(&env, &exports, "SQLiteSessionPersistDriver", "dispose")?;
    alias_close(&env, &exports, "PostgresSessionPersistDriver", "asyncDispose")
}

fn alias_close(env: &Env, exports: &Object<'_>, class: &str, symbol: &str) -> napi::Result<()> {
    let symbols: Object<'_> = env.get_global()?.get_named_property_unchecked("Symbol")?;
    let symbol: Unknown<'_> = symbols.get_named_property_unchecked(symbol)?;
    if convert::is_nullish(&symbol)? {
        return Ok(());
    }
    let class: Object<'_> = exports.get_named_property_unchecked(class)?;
    let mut prototype: Object<'_> = class.get_named_property_unchecked("prototype")?;
    let close: Function<'_, (), Unknown<'_>> = prototype.get_named_property_unchecked("close")?;
    prototype.set_property(symbol, close)
}
