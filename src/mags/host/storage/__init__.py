"""Workspaces' files: a JuiceFS volume, generations of disk images on it, and their sync.

engine       formats and mounts the volume, says how it is     config     its settings
workspaces   attach, delete, list, collect                     generations  the images of one workspace
syncer       guest's disk -> next generation                   trees      export and import
mount, juicefs, s3, seaweedfs   the programs and services below
"""
