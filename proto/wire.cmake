add_library(us_crc32c STATIC ${CMAKE_CURRENT_LIST_DIR}/crc32c.c)
target_link_libraries(us_crc32c PUBLIC understudy_flags PkgConfig::ISAL)
add_library(us_end_reason STATIC ${CMAKE_CURRENT_LIST_DIR}/end_reason.c)
target_link_libraries(us_end_reason PUBLIC understudy_flags)
add_library(us_wire STATIC ${CMAKE_CURRENT_LIST_DIR}/epoch_wire.c ${CMAKE_CURRENT_LIST_DIR}/rdma_wire.c)
target_link_libraries(us_wire PUBLIC us_crc32c)
# Sealed links and tags of heartbeats. The second one has planted faults, for the test that shows that the tests notice.
foreach(variant IN ITEMS "" "_chaos")
  add_library(us_seal${variant} STATIC ${CMAKE_CURRENT_LIST_DIR}/seal.c ${CMAKE_CURRENT_LIST_DIR}/seal_keys.c
    ${CMAKE_CURRENT_LIST_DIR}/seal_derive.c)
  target_link_libraries(us_seal${variant} PUBLIC understudy_flags PkgConfig::GNUTLS)
endforeach()
target_compile_definitions(us_seal_chaos PRIVATE UNDERSTUDY_CHAOS)
