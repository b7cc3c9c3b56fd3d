"""The networks: STN, backbone and head. They do not depend on files, settings or stages."""
