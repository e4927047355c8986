//! Bridges, endpoints, address management, published ports.
