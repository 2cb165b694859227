add_library(us_crc32c STATIC ${CMAKE_CURRENT_LIST_DIR}/crc32c.c)
target_link_libraries(us_crc32c PUBLIC understudy_flags PkgConfig::ISAL)
add_library(us_wire STATIC ${CMAKE_CURRENT_LIST_DIR}/epoch_wire.c ${CMAKE_CURRENT_LIST_DIR}/rdma_wire.c)
target_link_libraries(us_wire PUBLIC us_crc32c)
