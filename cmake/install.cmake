# What is installed besides the programs.
install(FILES docs/man/understudy.1 docs/man/nbdkit-understudy-plugin.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES docs/man/understudyd.8 DESTINATION ${CMAKE_INSTALL_MANDIR}/man8)
install(FILES completions/understudy DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
configure_file(systemd/understudyd.service.in understudyd.service @ONLY)
configure_file(systemd/understudy-drain.service.in understudy-drain.service @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/understudyd.service ${CMAKE_BINARY_DIR}/understudy-drain.service DESTINATION lib/systemd/system)
