"""The one list of all settings: made from the classes that declare them, read by host/, Ansible and the documents."""
