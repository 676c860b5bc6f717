//! The methods of the classes, which are the same in each: they pass the call on to the field
//! `driver`. Their types are in `dts-header.d.ts`, as they have overloads, which generated types
//! can't.

/// The SDK's `SessionPersistDriver`.
macro_rules! session_methods {
    ($class:ident) => {
        #[napi]
        impl $class {
            /// See `SessionPersistMethods`.
            #[napi(skip_typescript)]
            pub fn get_session<'env>(
                &self,
                env: &'env Env,
                id: Unknown<'_>,
            ) -> napi::Result<Unknown<'env>> {
                self.driver.get_session(env, id)
            }

            /// See `SessionPersistMethods`.
            #[napi(skip_typescript)]
            pub fn list_sessions<'env>(
                &self,
                env: &'env Env,
                request: Unknown<'_>,
            ) -> napi::Result<Unknown<'env>> {
                self.driver.list_sessions(env, request)
            }

            /// See `SessionPersistMethods`.
            #[napi(skip_typescript)]
            pub fn update_session<'env>(
                &self,
                env: &'env Env,
                session: Unknown<'_>,
            ) -> napi::Result<Unknown<'env>> {
                self.driver.update_session(env, session)
            }

            /// See `SessionPersistMethods`.
            #[napi(skip_typescript)]
            pub fn list_events<'env>(
                &self,
                env: &'env Env,
                request: Unknown<'_>,
            ) -> napi::Result<Unknown<'env>> {
                self.driver.list_events(env, request)
            }

            /// See `SessionPersistMethods`.
            #[napi(skip_typescript)]
            pub fn insert_event<'env>(
                &self,
                env: &'env Env,
                first: Unknown<'_>,
                second: Unknown<'_>,
            ) -> napi::Result<Unknown<'env>> {
                self.driver.insert_event(env, first, second)
            }
        }
    };
}

/// What a driver has beyond that.
macro_rules! replay_methods {
    ($class:ident) => {
        #[napi]
        impl $class {
            /// See `ReplayMethods`.
            #[napi(skip_typescript)]
            pub fn replay<'env>(
                &self,
                env: &'env Env,
                session_id: Unknown<'_>,
                options: Unknown<'_>,
            ) -> napi::Result<Unknown<'env>> {
                self.driver.replay(env, session_id, options)
            }

            /// See `ReplayMethods`.
            #[napi(skip_typescript)]
            pub fn replay_view(&self, env: &Env, options: Unknown<'_>) -> napi::Result<ReplayView> {
                ReplayView::of(env, &self.driver, options)
            }
        }
    };
}

pub(super) use {replay_methods, session_methods};
