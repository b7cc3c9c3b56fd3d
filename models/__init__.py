"""The network: STN, backbone, head. Plain modules that know no files and no stages."""
