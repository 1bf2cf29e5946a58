//! [`Micros`] as a `timestamptz`, in parameters and in results.
//!
//! Accepts every value of the column: a key that expires at `infinity`, or outside the range of a
//! calendar library, must not stop other keys from being read.

use bytes::{BufMut as _, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::event::time::Micros;

type Error = Box<dyn std::error::Error + Sync + Send>;

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Error> {
        // The infinities are the extremes of `i64`: the sum saturates.
        Ok(Self::from_postgres(i64::from_be_bytes(raw.try_into()?)))
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }
}

impl ToSql for Micros {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Error> {
        out.put_i64(self.to_postgres());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TIMESTAMPTZ
    }

    to_sql_checked!();
}
