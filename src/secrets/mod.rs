//! What is done with secrets without asking anybody: finding them in what is said, and sealing them for storage.
//!
//! Where they are kept is `store::secret`, who may have one is `usecase::secret` and the broker.

pub mod keyring;
pub mod mask;
