//! JSON objects as PROTOCOL.md 1 wants them: an unknown, missing or repeated field is refused. Deriving isn't strict
//! enough: a derived struct also takes an array, a missing `Option` is taken for null, and a derived enum of plain
//! words also takes `{"word":null}`. Not here: the values inside (`scalar`) and what they mean.

use serde::de::{Error, Unexpected};
use serde::{Deserialize, Deserializer};

/// The field `"v"`: there is nothing to keep of it but that it was right.
pub(crate) struct Version<const V: u64>;

impl<'de, const V: u64> Deserialize<'de> for Version<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            version if version == V => Ok(Self),
            other => Err(D::Error::invalid_value(
                Unexpected::Unsigned(other),
                &"the version of this protocol",
            )),
        }
    }
}

/// Defines a struct that is read from exactly its fields and written in their order. With `v 1` after the name it is a
/// payload: the field `"v"` is written first and must have that value.
macro_rules! object {
    (
        $(#[$meta:meta])*
        $visibility:vis struct $name:ident $(v $version:literal)? {
            $($(#[$field_meta:meta])* $field_visibility:vis $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$meta])*
        $visibility struct $name {
            $($(#[$field_meta])* $field_visibility $field: $type,)*
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap;
                #[allow(unused_mut)]
                let mut object = serializer.serialize_map(None)?;
                $(object.serialize_entry("v", &$version)?;)?
                $(object.serialize_entry(stringify!($field), &self.$field)?;)*
                object.end()
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;

                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    #[allow(clippy::never_loop)]
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        use serde::de::Error;
                        const KNOWN: &[&str] = &[$(stringify!($field)),*];
                        $(let mut version: Option<$crate::json::Version<$version>> = None;)?
                        $(let mut $field: Option<$type> = None;)*
                        while let Some(key) = map.next_key::<String>()? {
                            $(
                                if key == "v" {
                                    if version.is_some() {
                                        return Err(A::Error::duplicate_field("v"));
                                    }
                                    version = Some(map.next_value::<$crate::json::Version<$version>>()?);
                                    continue;
                                }
                            )?
                            $(
                                if key == stringify!($field) {
                                    if $field.is_some() {
                                        return Err(A::Error::duplicate_field(stringify!($field)));
                                    }
                                    $field = Some(map.next_value()?);
                                    continue;
                                }
                            )*
                            return Err(A::Error::unknown_field(&key, KNOWN));
                        }
                        $(let _: $crate::json::Version<$version> = version.ok_or_else(|| A::Error::missing_field("v"))?;)?
                        Ok($name {
                            $($field: $field.ok_or_else(|| A::Error::missing_field(stringify!($field)))?,)*
                        })
                    }
                }

                deserializer.deserialize_map(Fields)
            }
        }
    };
}

/// Defines an enum of plain words, written as JSON strings.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $($(#[$word_meta:meta])* $variant:ident = $word:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$word_meta])* $variant,)*
        }

        impl $name {
            /// The word as it is written in JSON.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// The value that this word stands for, if any.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = <String as serde::Deserialize>::deserialize(deserializer)?;
                Self::from_word(&word).ok_or_else(|| serde::de::Error::unknown_variant(&word, &[$($word),*]))
            }
        }
    };
}

pub(crate) use {object, words};

object! {
    /// `{}`: what some results say beside their name.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Nothing {}
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    #![allow(unreachable_pub)]
    use super::*;

    object! {
        #[derive(Debug, PartialEq)]
        pub struct Pair v 1 {
            pub left: u8,
            pub right: Option<u8>,
        }
    }

    words! {
        pub enum Side {
            Left = "left",
        }
    }

    fn pair(text: &str) -> Option<Pair> {
        serde_json::from_str(text).ok()
    }

    #[test]
    fn an_object_is_exactly_its_fields_in_any_order() {
        let good = Pair { left: 1, right: None };
        assert_eq!(
            serde_json::to_string(&good).unwrap(),
            r#"{"v":1,"left":1,"right":null}"#
        );
        assert_eq!(pair(r#"{"right":null,"left":1,"v":1}"#), Some(good));
        for bad in [
            r#"{"v":1,"left":1}"#,
            r#"{"left":1,"right":2}"#,
            r#"{"v":2,"left":1,"right":2}"#,
            r#"{"v":"1","left":1,"right":2}"#,
            r#"{"v":1,"v":1,"left":1,"right":2}"#,
            r#"{"v":1,"left":1,"right":2,"left":1}"#,
            r#"{"v":1,"left":1,"right":null,"right":null}"#,
            r#"{"v":1,"left":1,"right":2,"up":3}"#,
            r#"{"v":1,"left":1,"right":2}x"#,
            r#"{"v":1,"left":1,"right":2,}"#,
            r#"[1,1,2]"#,
            r#"[1,2]"#,
            r#"null"#,
        ] {
            assert_eq!(pair(bad), None, "{bad}");
        }
    }

    #[test]
    fn nothing_is_an_empty_object() {
        let nothing = |text| serde_json::from_str::<Nothing>(text).is_ok();
        assert!(nothing("{}"));
        assert!(!nothing("[]") && !nothing("null") && !nothing(r#"{"a":1}"#));
    }

    #[test]
    fn a_word_is_a_string() {
        let side = |text| serde_json::from_str::<Side>(text).ok();
        assert_eq!(side(r#""left""#), Some(Side::Left));
        for bad in [r#"{"left":null}"#, r#""Left""#, r#""right""#, "0", "null"] {
            assert_eq!(side(bad), None, "{bad}");
        }
    }
}
