"""The command line: parse, call one library function, render. One file a command, and only this package prints."""
