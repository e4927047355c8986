//! Docker's wire types.
