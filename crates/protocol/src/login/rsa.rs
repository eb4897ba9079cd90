//! The RSA key of a game server, with which clients encrypt what is secret in a login. One block has 128 bytes, and is a number in big
//! endian, with nothing added: a power of it is all that there is to do.

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U1024};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use thiserror::Error;
use yasna::{ASN1Error, ASN1ErrorKind, ASN1Result, BERReader};
use zeroize::Zeroizing;

/// Bytes of a block, and of the modulus.
pub(super) const BLOCK: usize = 128;
/// The exponent of public keys.
const PUBLIC_EXPONENT: u64 = 65537;

/// The modulus of the key that servers have unless their owner makes another, which everybody knows.
const STANDARD_MODULUS: U1024 = U1024::from_be_hex(
    "9b646903b45b07ac956568d87353bd7165139dd7940703b03e6dd079399661b4a837aa60561d7ccb9452fa0080594909882ab5bca58a1a1b35f8b1059b72b121\
     2611c6152ad3dbb3cfbee7adc142a75d3d75971509c321c5c24a5bd51fd460f01b4e15beb0de1930528a5d3f15c1e3cbf5c401d6777e10acaab33dbe8d5b7ff5",
);
/// Its private exponent, which everybody knows too.
const STANDARD_EXPONENT: U1024 = U1024::from_be_hex(
    "428bd3b5346daf71a761106f71a43102f8c857d6549c54660bb6378b52b0261399de8ce648bac410e2ea4e0a1ced1fac2756331220ca6db7ad7b5d440b782886\
     5856e7aa6d8f45837feee9b4a3a0aa21322a1e2ab75b1825e786cf81a28a8a09a1e28519db64ff9baf311e850c2bfa1fb7b08a056cc337f7df443761aefe8d81",
);

/// The reason for which a file has no key that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// It is no PEM file with a private key.
    #[error("has no private key in PEM form, as `-----BEGIN RSA PRIVATE KEY-----`")]
    NoKey,
    /// It has a key that is not one of RSA, or is damaged.
    #[error("has a private key that is damaged, or not one of RSA")]
    NoRsa,
    /// Its key does not fit the blocks of logins.
    #[error("has a key of {0} bits, and logins are encrypted with keys of 1024")]
    Size(usize),
    /// Its numbers do not belong together.
    #[error("has a key whose public and private parts do not belong together")]
    Mismatch,
}

/// A private key. Its operation takes the same time for each block and exponent.
#[derive(Clone)]
pub struct RsaKey {
    modulus: FixedMontyParams<{ U1024::LIMBS }>,
    exponent: Zeroizing<U1024>,
}

/// A public key, with the exponent that all have: 65537.
#[derive(Debug, Clone)]
pub struct RsaPublicKey {
    modulus: FixedMontyParams<{ U1024::LIMBS }>,
}

impl RsaKey {
    /// Returns the key that servers have unless their owner makes another.
    #[must_use]
    pub fn standard() -> Self {
        Self::new(STANDARD_MODULUS, Zeroizing::new(STANDARD_EXPONENT))
            .unwrap_or_else(|_| unreachable!("a test holds that it is one"))
    }

    /// Reads a file in PEM form, PKCS#1 or PKCS#8.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let (modulus, exponent) = match PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyError::NoKey)? {
            PrivateKeyDer::Pkcs1(der) => yasna::parse_der(der.secret_pkcs1_der(), pkcs1),
            PrivateKeyDer::Pkcs8(der) => yasna::parse_der(der.secret_pkcs8_der(), pkcs8),
            _ => return Err(KeyError::NoRsa),
        }
        .map_err(|_| KeyError::NoRsa)?;
        let size = modulus.len() * 8 - modulus.first().map_or(0, |first| first.leading_zeros() as usize);
        if size != BLOCK * 8 {
            return Err(KeyError::Size(size));
        }
        if exponent.len() > BLOCK {
            return Err(KeyError::Mismatch);
        }
        let mut padded = Zeroizing::new([0; BLOCK]);
        for (to, from) in padded.iter_mut().rev().zip(exponent.iter().rev()) {
            *to = *from;
        }
        Self::new(U1024::from_be_slice(&modulus), Zeroizing::new(U1024::from_be_slice(&padded[..])))
    }

    fn new(modulus: U1024, exponent: Zeroizing<U1024>) -> Result<Self, KeyError> {
        let modulus = Odd::new(modulus).into_option().ok_or(KeyError::Mismatch)?;
        let key = Self { modulus: FixedMontyParams::new(modulus), exponent };
        let mut block = [7; BLOCK];
        key.public().encrypt(&mut block);
        key.decrypt(&mut block);
        if block == [7; BLOCK] { Ok(key) } else { Err(KeyError::Mismatch) }
    }

    /// Returns its public half.
    #[must_use]
    pub fn public(&self) -> RsaPublicKey {
        RsaPublicKey { modulus: self.modulus }
    }

    /// Decrypts a block in place.
    pub fn decrypt(&self, block: &mut [u8; BLOCK]) {
        power(block, &self.modulus, |form| form.pow(&*self.exponent));
    }
}

impl RsaPublicKey {
    /// Encrypts a block in place: a number below the modulus, which one that begins with a zero is.
    pub fn encrypt(&self, block: &mut [u8; BLOCK]) {
        power(block, &self.modulus, |form| form.pow_vartime(&U1024::from_u64(PUBLIC_EXPONENT)));
    }
}

impl std::fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RsaKey(..)")
    }
}

impl PartialEq for RsaKey {
    fn eq(&self, other: &Self) -> bool {
        self.modulus.modulus() == other.modulus.modulus()
    }
}

impl Eq for RsaKey {}

type Form = FixedMontyForm<{ U1024::LIMBS }>;

fn power(block: &mut [u8; BLOCK], modulus: &FixedMontyParams<{ U1024::LIMBS }>, raised: impl FnOnce(Form) -> Form) {
    let number = Zeroizing::new(U1024::from_be_slice(block));
    block.copy_from_slice(raised(Form::new(&number, modulus)).retrieve().to_be_bytes().as_ref());
}

/// The modulus and the private exponent of a key, without zeros in front.
type Numbers = (Vec<u8>, Zeroizing<Vec<u8>>);

/// Reads the structure of PKCS#1: a version and eight numbers.
fn pkcs1(reader: BERReader<'_, '_>) -> ASN1Result<Numbers> {
    reader.read_sequence(|fields| {
        fields.next().read_u64()?;
        let modulus = number(fields.next())?;
        let _public = number(fields.next())?;
        let exponent = Zeroizing::new(number(fields.next())?);
        for _ in 0..5 {
            drop(Zeroizing::new(number(fields.next())?));
        }
        Ok((modulus, exponent))
    })
}

/// Reads the structure of PKCS#8, which has that of PKCS#1 in it.
fn pkcs8(reader: BERReader<'_, '_>) -> ASN1Result<Numbers> {
    reader.read_sequence(|fields| {
        fields.next().read_u64()?;
        fields.next().read_der()?;
        let inner = Zeroizing::new(fields.next().read_bytes()?);
        // Attributes.
        fields.read_optional(|reader| reader.read_der())?;
        yasna::parse_der(&inner, pkcs1)
    })
}

fn number(reader: BERReader<'_, '_>) -> ASN1Result<Vec<u8>> {
    let (mut bytes, positive) = reader.read_bigint_bytes()?;
    if !positive {
        return Err(ASN1Error::new(ASN1ErrorKind::Invalid));
    }
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.drain(..zeros);
    Ok(bytes)
}
