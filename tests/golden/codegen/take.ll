target triple = "x86_64-unknown-linux-gnu"
define i32 @graphc_kernel(ptr %a0, ptr %a1, i64 %a2, i64 %a3, ptr %a4) nounwind "no-builtins" "prefer-vector-width"="512" {
entry1:
  br label %start2
start2:
  %v3 = getelementptr ptr, ptr %a0, i64 0
  %v4 = load ptr, ptr %v3
  %v5 = getelementptr ptr, ptr %a0, i64 1
  %v6 = load ptr, ptr %v5
  %v7 = getelementptr ptr, ptr %a0, i64 2
  %v8 = load ptr, ptr %v7
  %v9 = getelementptr i64, ptr %a1, i64 1
  %v10 = load i64, ptr %v9, align 8
  %v11 = getelementptr i64, ptr %a1, i64 2
  %v12 = load i64, ptr %v11, align 8
  %v15 = icmp slt i64 %a2, %a3
  br i1 %v15, label %b13, label %b14
b13:
  %v16 = phi i64 [ %a2, %start2 ], [ %v55, %b34 ]
  %v17 = call i64 @llvm.expect.i64(i64 %v16, i64 0)
  %v18 = getelementptr i32, ptr %v6, i64 %v17
  %v19 = load i32, ptr %v18, align 4
  %v20 = sext i32 %v19 to i64
  %v21 = call i64 @llvm.expect.i64(i64 %v20, i64 0)
  %v22 = icmp slt i64 %v21, 0
  %v23 = icmp sge i64 %v21, %v10
  %v24 = or i1 %v22, %v23
  br i1 %v24, label %b25, label %b26
b14:
  ret i32 0
b25:
  %v28 = getelementptr i8, ptr %a4, i64 8
  store i64 7, ptr %v28
  %v29 = getelementptr i8, ptr %a4, i64 16
  store i64 %v21, ptr %v29
  %v30 = getelementptr i8, ptr %a4, i64 24
  store i64 %v10, ptr %v30
  %v31 = getelementptr i8, ptr %a4, i64 32
  store i64 %v17, ptr %v31
  ret i32 1
b26:
  br label %b27
b27:
  %v35 = icmp slt i64 0, %v12
  br i1 %v35, label %b32, label %b34
b32:
  %v38 = mul i64 %v12, %v17
  %v39 = getelementptr float, ptr %v8, i64 %v38
  %v40 = mul i64 %v21, %v12
  br label %b33
b33:
  %v36 = phi i64 [ 0, %b32 ], [ %v53, %b33 ]
  %v37 = call i64 @llvm.expect.i64(i64 %v36, i64 0)
  %v41 = insertelement <16 x i64> poison, i64 %v37, i32 0
  %v42 = shufflevector <16 x i64> %v41, <16 x i64> poison, <16 x i32> splat (i32 0)
  %v43 = add <16 x i64> %v42, <i64 0, i64 1, i64 2, i64 3, i64 4, i64 5, i64 6, i64 7, i64 8, i64 9, i64 10, i64 11, i64 12, i64 13, i64 14, i64 15>
  %v44 = insertelement <16 x i64> poison, i64 %v40, i32 0
  %v45 = shufflevector <16 x i64> %v44, <16 x i64> poison, <16 x i32> splat (i32 0)
  %v46 = add <16 x i64> %v45, %v43
  %v47 = insertelement <16 x i64> poison, i64 %v12, i32 0
  %v48 = shufflevector <16 x i64> %v47, <16 x i64> poison, <16 x i32> splat (i32 0)
  %v49 = icmp slt <16 x i64> %v43, %v48
  %v50 = getelementptr float, ptr %v4, <16 x i64> %v46
  %v51 = call <16 x float> @llvm.masked.gather.v16f32.v16p0(<16 x ptr> %v50, i32 4, <16 x i1> %v49, <16 x float> splat (float 0x0000000000000000))
  %v52 = getelementptr float, ptr %v39, i64 %v37
  call void @llvm.masked.store.v16f32.p0(<16 x float> %v51, ptr %v52, i32 4, <16 x i1> %v49)
  %v53 = add nsw i64 %v36, 16
  %v54 = icmp slt i64 %v53, %v12
  br i1 %v54, label %b33, label %b34
b34:
  %v55 = add nsw i64 %v16, 1
  %v56 = icmp slt i64 %v55, %a3
  br i1 %v56, label %b13, label %b14
}

declare i64 @llvm.expect.i64(i64, i64) 

declare <16 x float> @llvm.masked.gather.v16f32.v16p0(<16 x ptr>, i32, <16 x i1>, <16 x float>) 

declare void @llvm.masked.store.v16f32.p0(<16 x float>, ptr, i32, <16 x i1>) 

!0 = !{i32 1}
