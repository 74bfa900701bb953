/// Name of a label, and the values that it can have: none if they are not known beforehand.
pub type Values = (&'static str, &'static [&'static str]);

/// Name and value of a label.
pub type Pair = (&'static str, &'static str);

/// The one label of a metric.
pub trait Label {
    /// Name of the label.
    const NAME: &'static str;
    /// All values that it can have: none if they are not known beforehand.
    const VALUES: &'static [&'static str];

    /// The value as a metric shows it.
    fn value(&self) -> &'static str;

    /// The place of its value among [`Self::VALUES`].
    fn place(&self) -> usize {
        let value = self.value();
        let place = Self::VALUES.iter().position(|other| *other == value);
        place.unwrap_or_default()
    }
}

/// The labels of a metric: none, a [`Label`], or several.
pub trait Labels {
    /// What there is of each.
    const ALL: &'static [Values];

    /// Name and value of each.
    fn pairs(&self) -> Vec<Pair>;
}

impl Labels for () {
    const ALL: &'static [Values] = &[];

    fn pairs(&self) -> Vec<Pair> {
        Vec::new()
    }
}

impl<L: Label> Labels for L {
    const ALL: &'static [Values] = &[(L::NAME, L::VALUES)];

    fn pairs(&self) -> Vec<Pair> {
        vec![(L::NAME, self.value())]
    }
}

/// Defines an enum that is a [`Label`].
#[macro_export]
macro_rules! label {
    (
        $(#[$about:meta])*
        $visibility:vis enum $Label:ident: $name:literal {
            $($(#[$meta:meta])* $Variant:ident = $value:literal),+ $(,)?
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $visibility enum $Label { $($(#[$meta])* $Variant),+ }

        impl $crate::Label for $Label {
            const NAME: &'static str = $name;
            const VALUES: &'static [&'static str] = &[$($value),+];

            fn value(&self) -> &'static str {
                match self { $(Self::$Variant => $value),+ }
            }
        }
    };
}
