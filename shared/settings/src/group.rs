//! A group of settings, and the macro that declares one.

use std::collections::BTreeSet;

use crate::spec::Spec;
use crate::values::Values;

/// A group of settings, made by [`settings!`](crate::settings!).
pub trait Settings: Sized {
    /// Every setting of the group, in the order of `--help`.
    fn specs() -> Vec<Spec>;

    /// Takes the group's values. `None` if one is wrong; `values` then holds the reason of each wrong
    /// setting.
    fn read(values: &mut Values) -> Option<Self>;

    /// Whether the values go together.
    ///
    /// # Errors
    /// Names the settings that do not go together, and says why.
    fn check(&self) -> Result<(), String>;

    /// Name and masked value of every setting.
    fn show(&self) -> Vec<(&'static str, String)>;
}

/// Leaves out what has the name of something before it: a group may be included in several others.
#[doc(hidden)]
pub fn once<T>(all: impl Iterator<Item = T>, name: impl Fn(&T) -> &'static str) -> Vec<T> {
    let mut names = BTreeSet::new();
    all.filter(|one| names.insert(name(one))).collect()
}

/// Declares a group of settings as a struct with [`Settings`]; `in` gives the bounds of a value, `with`
/// names the groups that are included (also in several of them), `where` another default of a setting of such a group, and `check`
/// a function that says whether values go together.
///
/// ```
/// settings::settings! {
///     /// Settings of an example.
///     pub struct Example {
///         /// How many there are.
///         pub count: std::num::NonZeroUsize = "3" in "1"..="100",
///     } with {}
/// }
/// ```
#[macro_export]
macro_rules! settings {
    (@read $values:ident, $Type:ty, $name:expr) => {
        $values.read::<$Type>($name)
    };
    (@read $values:ident, $Type:ty, $name:expr, $least:literal, $most:literal) => {
        $values.read_within::<$Type>($name, ($least, $most))
    };
    (
        $(#[$meta:meta])*
        pub struct $Name:ident {
            $( $(#[doc = $help:literal])+ pub $field:ident : $Type:ty = $default:literal
                $(in $least:literal ..= $most:literal)?, )*
        } with {
            $( $(#[doc = $about:literal])+ pub $group:ident : $Group:ty
                $(where $setting:ident = $other:literal)*, )*
        } $(check $check:path)?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $Name {
            $( $(#[doc = $help])+ pub $field: $Type, )*
            $( $(#[doc = $about])+ pub $group: $Group, )*
        }

        impl $crate::Settings for $Name {
            fn specs() -> Vec<$crate::Spec> {
                let own = vec![
                    $( $crate::Spec::new(stringify!($field), $default, &[$($help),+])
                        .within(None $(.or(Some(($least, $most))))?)
                        .secret(<$Type as $crate::Value>::SECRET), )*
                ];
                let groups: Vec<Vec<$crate::Spec>> = vec![$(
                    <$Group as $crate::Settings>::specs().into_iter()
                        $(.map(|spec| spec.with_default(stringify!($setting), $other)))*
                        .collect()
                ),*];
                let all = own.into_iter().chain(groups.into_iter().flatten());
                $crate::once(all, |spec| spec.name)
            }

            fn read(values: &mut $crate::Values) -> Option<Self> {
                // Every setting is read before the first `?`, so that all errors are found.
                $( let $field = $crate::settings!(
                    @read values, $Type, stringify!($field) $(, $least, $most)?
                ); )*
                $( let $group = <$Group as $crate::Settings>::read(values); )*
                Some(Self { $( $field: $field?, )* $( $group: $group?, )* })
            }

            fn check(&self) -> Result<(), String> {
                $( $crate::Settings::check(&self.$group)?; )*
                $( $check(self)?; )?
                Ok(())
            }

            fn show(&self) -> Vec<(&'static str, String)> {
                let own = vec![
                    $( (stringify!($field), $crate::Value::show(&self.$field)), )*
                ];
                let groups: Vec<Vec<(&'static str, String)>> =
                    vec![$( $crate::Settings::show(&self.$group) ),*];
                let all = own.into_iter().chain(groups.into_iter().flatten());
                $crate::once(all, |(name, _)| *name)
            }
        }
    };
}
