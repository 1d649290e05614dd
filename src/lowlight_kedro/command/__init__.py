"""The command `lowlight`. (Kedro takes a module `cli` for commands of its own, so this one is not called that.)"""
