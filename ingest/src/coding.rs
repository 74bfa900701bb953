//! Content codings: how the body of a request is compressed.

use std::io::Read;

use flate2::bufread::{GzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use crate::body::Body;
use crate::error::ApiError;

/// Each coding costs another pass over the body. No sender has a reason for more.
const LIMIT: usize = 4;

/// A gzip file may have several parts. Each costs the set-up of a decoder, even if it is empty.
const PARTS_LIMIT: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    /// The zlib format, which HTTP means by this name; raw deflate has no checksum.
    Deflate,
}

/// The codings of a body, in the order in which they were applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Codings(Vec<Coding>);

impl Codings {
    /// Reads the header of a request.
    ///
    /// # Errors
    /// A coding is not understood, or there are too many.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let mut codings = Vec::new();
        for line in headers.get_all(CONTENT_ENCODING) {
            for name in line.as_bytes().split(|byte| *byte == b',') {
                match &*name.trim_ascii().to_ascii_lowercase() {
                    b"gzip" | b"x-gzip" => codings.push(Coding::Gzip),
                    b"deflate" => codings.push(Coding::Deflate),
                    b"identity" | b"" => {}
                    _ => return Err(ApiError::UnsupportedCoding),
                }
            }
        }
        if codings.len() > LIMIT {
            return Err(ApiError::UnsupportedCoding);
        }
        Ok(Self(codings))
    }

    /// Decodes a body within the same limits. This does not wait for anything, so there are no more
    /// decoders at once than threads. Neither they nor the encoded bytes count as memory of bodies.
    ///
    /// # Errors
    /// The body is not in these codings, is too large, or there is no memory for it.
    pub(crate) fn decode(&self, mut body: Body) -> Result<Body, ApiError> {
        for coding in self.0.iter().rev() {
            let (bytes, mut decoded) = body.into_bytes_and_room();
            let mut encoded = &*bytes;
            match coding {
                Coding::Gzip => {
                    copy(GzDecoder::new(&mut encoded), &mut decoded)?;
                    for _ in 1..PARTS_LIMIT {
                        if encoded.is_empty() {
                            break;
                        }
                        copy(GzDecoder::new(&mut encoded), &mut decoded)?;
                    }
                }
                Coding::Deflate => copy(ZlibDecoder::new(&mut encoded), &mut decoded)?,
            }
            if !encoded.is_empty() {
                return Err(ApiError::Undecodable(
                    "something follows its end".to_owned(),
                ));
            }
            body = decoded;
        }
        Ok(body)
    }
}

fn copy(mut from: impl Read, to: &mut Body) -> Result<(), ApiError> {
    let mut piece = [0; 8 << 10];
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => to.append(&piece[..length])?,
            Err(error) => return Err(ApiError::Undecodable(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http::HeaderValue;
    use tokio::sync::Semaphore;

    use super::*;

    const LIMIT: usize = 64 << 10;

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn codings(line: &'static str) -> Result<Codings, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(line));
        Codings::of(&headers)
    }

    fn decode(line: &'static str, body: &[u8], memory: &Arc<Semaphore>) -> Result<Body, ApiError> {
        let mut encoded = Body::empty(LIMIT, Arc::clone(memory));
        encoded.append(body)?;
        codings(line)?.decode(encoded)
    }

    #[test]
    fn codings_are_understood_in_any_case_and_with_empty_places_between_them() {
        let both = Ok(Codings(vec![Coding::Gzip, Coding::Deflate]));
        for line in [
            "gzip,deflate",
            "GZIP , Deflate",
            ",x-gzip,, identity,\tdeflate ,",
        ] {
            assert_eq!(codings(line), both, "{line}");
        }
        for line in ["br", "gzip br", "gzip;q=1", "gzip, gzip, gzip, gzip, gzip"] {
            assert_eq!(codings(line), Err(ApiError::UnsupportedCoding), "{line}");
        }
        let headers = HeaderMap::from_iter([(
            CONTENT_ENCODING,
            HeaderValue::from_bytes(b"gzip\xFF").unwrap(),
        )]);
        assert_eq!(Codings::of(&headers), Err(ApiError::UnsupportedCoding));
    }

    #[test]
    fn memory_is_that_of_the_decoded_body_and_given_back() {
        let memory = Arc::new(Semaphore::new(48));
        let body = decode("gzip", &gzip(&vec![b' '; LIMIT]), &memory).unwrap();
        // What the first 16 KiB do not hold.
        assert_eq!((body.bytes().len(), memory.available_permits()), (LIMIT, 0));
        let full = decode("gzip", &gzip(&vec![b' '; LIMIT]), &memory);
        assert_eq!(full.unwrap_err(), ApiError::Overloaded);
        drop(body);
        assert_eq!(memory.available_permits(), 48);
    }

    #[test]
    fn a_bomb_takes_no_more_than_the_limit() {
        let memory = Arc::new(Semaphore::new(48));
        let bomb = gzip(&vec![b' '; 40 << 20]);
        for (line, body) in [("gzip", &bomb), ("gzip, gzip", &gzip(&bomb))] {
            let error = decode(line, body, &memory).unwrap_err();
            assert_eq!(error, ApiError::PayloadTooLarge(LIMIT));
            assert_eq!(memory.available_permits(), 48);
        }
    }

    #[test]
    fn so_many_parts_are_decoded_and_no_more() {
        let memory = Arc::new(Semaphore::new(48));
        let parts = |count: usize| gzip(b" ").repeat(count);
        let body = decode("gzip", &parts(PARTS_LIMIT), &memory).unwrap();
        assert_eq!(body.bytes(), b" ".repeat(PARTS_LIMIT));
        assert!(matches!(
            decode("gzip", &parts(PARTS_LIMIT + 1), &memory),
            Err(ApiError::Undecodable(_))
        ));
    }
}
