from sunpipe.cli import main

main()
